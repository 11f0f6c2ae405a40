# Every target runs in .venv, and creates it if necessary. PYTHON chooses the interpreter for it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo picture test check format soak fuzz bench bench-quick build clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## Run a small tree of real processes, and show their ledger.
	$(BIN)/podledger demo

picture: $(VENV)/.installed ## Draw the picture in the README (docs/demo.svg) from a run of the demo.
	$(BIN)/podledger demo --svg docs/demo.svg

test: $(VENV)/.dev ## Run the test suite (minutes).
	$(BIN)/pytest --numprocesses auto

soak: $(VENV)/.dev ## Run the long fault tests (half an hour); PODLEDGER_SEED=N repeats a run.
	$(BIN)/pytest -m soak

fuzz: $(VENV)/.dev ## Send altered lines to a receiver; MINUTES=N sets how long (default 60).
	$(BIN)/python -m tests.faults.fuzz $(or $(MINUTES),60)

check: $(VENV)/.dev ## Check style, formatting and types.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.dev ## Fix style and formatting where that is automatic.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.bench ## Measure the speed (minutes), and update the figures in the README.
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.report

bench-quick: $(VENV)/.bench ## Measure the speed roughly (half a minute); change no file.
	$(BIN)/python -m benchmarks --quick --to "$$(mktemp -d)"

build: $(VENV)/.dev ## Build the packages in dist/.
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
