# Everything a developer types. `make` alone lists it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# Extra words for pip, such as --extra-index-url https://download.pytorch.org/whl/cpu for torch without CUDA.
PIP_ARGS ?=
PYTEST ?= $(BIN)/python -m pytest
# Test processes at once; a file's tests stay together. WORKERS=0 runs them in one process, for a debugger.
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test check static format lint types layers test-js test-browser test-processes test-long wheel bench demo-model demo-graphs docs screenshot

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

$(STAMP): pyproject.toml constraints.txt hatch_build.py $(wildcard scripts/vendor/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS) -c constraints.txt -e '.[dev]'
	@touch $(STAMP)
	@echo "installed into $(VENV); put circuit-tracer on this shell's path with: . $(BIN)/activate"

setup: $(STAMP) ## Make .venv and install the package in it, with everything pinned

demo: $(STAMP) ## Trace the embedded example and open the viewer on it
	$(BIN)/circuit-tracer demo

test: $(STAMP) test-js ## Run every test that a change must pass
	$(PYTEST) -n $(WORKERS) --dist loadfile

check: $(STAMP) static test test-browser test-processes wheel test-long ## Run everything: static checks, tests, wheel, long suites

static: format lint types layers ## Run what takes seconds: format, lint, strict types, layers

format: $(STAMP) ## Fail if a file isn't formatted (`make format FIX=1` formats)
	$(BIN)/ruff format $(if $(FIX),,--check) .

lint: $(STAMP) ## Lint the Python code
	$(BIN)/ruff check $(if $(FIX),--fix) .

types: $(STAMP) ## Check the types, strictly
	$(BIN)/mypy

layers: $(STAMP) ## Check who imports whom
	$(PYTEST) -q tests/test_layers.py tests/test_imports.py

test-js: ## Run the viewer's own tests, if Node is there
	@if command -v node >/dev/null; then node --test tests/js/*.test.mjs; else echo "skipped: no node on this machine"; fi

test-browser: $(STAMP) ## Run what `make test` leaves out of the browser tests
	$(PYTEST) -n $(WORKERS) --dist loadfile -m "browser and not long" tests/browser

test-processes: $(STAMP) ## Run what only processes of their own can show: signals, pipes, a full disk
	$(PYTEST) -n $(WORKERS) -m "process and not long"

test-long: $(STAMP) ## Run the suites that take minutes
	$(PYTEST) -m long

wheel: $(STAMP) ## Build wheel and sdist into dist/, install the wheel in a clean place and try it
	$(BIN)/python -m build --no-isolation --outdir dist .
	$(PYTEST) -m "" tests/wheel

bench: $(STAMP) ## Measure the engine against the floor of this machine
	$(BIN)/python -m benchmarks $(BENCH_ARGS)

demo-model: $(STAMP) ## Train the embedded model and its transcoders again, from their seed
	$(BIN)/python -m training.build

demo-graphs: $(STAMP) ## Make the annotated graphs in demos/graphs again
	$(BIN)/python scripts/demo_graphs.py

docs: $(STAMP) ## Write docs/cli.md and the stored help texts again
	$(BIN)/python scripts/write_cli_docs.py

screenshot: $(STAMP) ## Make the README's picture from the demo
	$(BIN)/python scripts/screenshot.py
