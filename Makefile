# Everything runs in .venv, which the first call creates and later calls reuse.
# A change of pyproject.toml or constraints.txt installs again.

PYTHON ?= python3
DEMO_ARGS ?=
PYTEST_ARGS ?= --numprocesses=auto --maxprocesses=4

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready

# The stamp holds the checkout's path, since an environment does not survive being moved
# or copied. One without a valid stamp or a working Python is built from nothing.
ifneq ($(shell test -x $(BIN)/python && cat $(STAMP) 2>/dev/null),$(CURDIR))
$(shell rm -f $(STAMP))
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test tutorials lint format clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "Variables: PYTHON=python3.12 (for a new .venv), DEMO_ARGS='--limit 12',"
	@echo "           PYTEST_ARGS='-k name'"

# The stamp is written before pip reads the files and renamed last: a change during the
# installation counts, and a broken installation leaves no stamp.
$(STAMP): pyproject.toml constraints.txt
	@if test -e $@; then \
	  echo "$? changed: installing again into $(VENV)"; \
	  rm -f $@; \
	elif $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))'; then \
	  echo "Creating $(VENV) with $(PYTHON) (this takes a few minutes)"; \
	  $(PYTHON) -m venv --clear $(VENV); \
	else \
	  echo "error: this needs Python 3.10 or newer, but PYTHON=$(PYTHON) is" \
	    "$$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.11" >&2; \
	  exit 1; \
	fi
	@printf '%s\n' '$(CURDIR)' > $@.tmp
	$(BIN)/python -m pip install --disable-pip-version-check --quiet \
	  -c constraints.txt -e '.[dev]'
	@mv $@.tmp $@

demo: $(STAMP)  ## Explain held-out movie reviews and write report/index.html
	$(BIN)/captum-attngrad demo --output report/ $(DEMO_ARGS)

test: lint  ## Run the linters and all tests
	$(BIN)/python -m pytest $(PYTEST_ARGS)

tutorials: $(STAMP)  ## Run the notebooks in tutorials/ from top to bottom
	$(BIN)/python tutorials/execute.py

lint: $(STAMP)  ## Check style, formatting and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(STAMP)  ## Format the code and apply the safe fixes
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:  ## Remove .venv, the report, caches and build products
	rm -rf $(VENV) report build dist *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find captum_attngrad tests -name __pycache__ -type d -prune -exec rm -rf {} +
