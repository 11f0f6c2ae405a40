# Everything runs in .venv, which the first verb makes. PYTHON chooses the interpreter that it is made of.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help demo test check format soak fuzz bench bench-quick build clean

help: ## What there is to make.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## A small tree of real processes, and what the ledger makes of it.
	$(BIN)/podledger demo

test: $(VENV)/.dev ## The whole suite.
	$(BIN)/pytest --numprocesses auto

soak: $(VENV)/.dev ## Long rounds of faults; PODLEDGER_SEED plays one again.
	$(BIN)/pytest -m soak

fuzz: $(VENV)/.dev ## MINUTES (60) of altered lines; what is answered as none before goes into tests/corpus.
	$(BIN)/python -m tests.faults.fuzz $(or $(MINUTES),60)

check: $(VENV)/.dev ## Lint, format and types.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(VENV)/.dev ## Mend what the linter can mend.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: $(VENV)/.bench ## Beside bare SQLite, a bare server and other libraries: some minutes; puts the figures into the README.
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.report

bench-quick: $(VENV)/.bench ## The same in half a minute, to try it out; nothing is kept.
	$(BIN)/python -m benchmarks --quick --to "$$(mktemp -d)"

build: $(VENV)/.dev ## The source distribution, and the wheel that is built from it.
	$(BIN)/python -m build --outdir dist .

clean: ## Remove what the other verbs made.
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
