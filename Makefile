# Everything happens in $(VENV), which .ci/venv makes and keeps up to date: a second call installs nothing.
#   make quickstart ARGS="debug=tiny"      further overrides
#   make test PYTHON=python3.12            another Python (3.11 to 3.13)
#   make test ARGS="tests/data -x"         pytest's own words
VENV    ?= .venv
ARGS    ?=
# Processes of the test run; each computes with one thread.
WORKERS ?= 2

INSTALL = @bash .ci/venv "$(VENV)"
BIN     = "$(VENV)"/bin
PYTEST  = OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses $(WORKERS) --durations 10 --durations-min 3

.PHONY: help quickstart quickstart-check test test-all lint types contracts format clean

help:             ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+): *## /\1|/' | awk -F'|' '{printf "make %-18s%s\n", $$1, $$2}'

quickstart:       ## a small chat model from nothing on the CPU: tokenizer, base, mid, sft, eval, a sample conversation
	$(INSTALL)
	$(BIN)/nanochat stage=pipeline experiment=quickstart $(ARGS)
	@echo "(the command is $(VENV)/bin/nanochat; '. $(VENV)/bin/activate' puts it on the path)"

quickstart-check: ## asks that model held-out counting questions
	$(INSTALL)
	$(BIN)/nanochat stage=eval init_from=sft/quickstart data=sft_generated eval=counting run=quickstart-check $(ARGS)
	$(BIN)/python examples/quickstart_check.py

test:             ## the fast tests
	$(INSTALL) dev
	$(PYTEST) $(ARGS)

test-all:         ## the slow tests too
	$(INSTALL) dev
	$(PYTEST) -m "slow or not slow" $(ARGS)

lint:             ## ruff: style, and that the formatter has nothing to do
	$(INSTALL) dev
	$(BIN)/python -m ruff check --output-format concise
	$(BIN)/python -m ruff format --check

types:            ## mypy
	$(INSTALL) dev
	$(BIN)/python -m mypy

contracts:        ## import-linter: a module imports only from floors below its own
	$(INSTALL) dev
	$(BIN)/lint-imports

format:           ## lets ruff write
	$(INSTALL) dev
	$(BIN)/python -m ruff check --fix
	$(BIN)/python -m ruff format

clean:            ## removes caches and build output; the environment and the runs stay
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find src launch tests -name __pycache__ -type d -prune -exec rm -rf {} +
