# Every target runs in .venv, and creates it if necessary. PYTHON chooses the interpreter for it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test check format soak fuzz bench bench-quick build clean

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## Run a small tree of real processes, and show their ledger.
	$(BIN)/podledger demo

test: $(VENV)/.dev ## Run the test suite.
	$(BIN)/pytest --numprocesses auto

soak: $(VENV)/.dev ## Run the long fault tests; set PODLEDGER_SEED to repeat a run.
	$(BIN)/pytest -m soak

fuzz: $(VENV)/.dev ## Send altered lines for MINUTES (default 60); add lines with a new answer to tests/corpus.
	$(BIN)/python -m tests.faults.fuzz $(or $(MINUTES),60)

check: $(VENV)/.dev ## Check lint rules, formatting and types.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.dev ## Fix lint problems and formatting.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.bench ## Compare with bare SQLite, a bare server and other libraries (minutes); update the README.
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.report

bench-quick: $(VENV)/.bench ## Run a short benchmark (half a minute); keep nothing.
	$(BIN)/python -m benchmarks --quick --to "$$(mktemp -d)"

build: $(VENV)/.dev ## Build the source distribution, and a wheel from it.
	$(BIN)/python -m build --outdir dist .

clean: ## Remove the virtual environment, builds and caches.
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"

$(VENV)/.installed: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

$(VENV)/.bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.install
	@touch $@
