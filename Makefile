# Every target sets up what it needs: `make demo` and `make test` work in a fresh clone.
PYTHON ?= python3
BIN = .venv/bin
PIP = $(BIN)/python -m pip --disable-pip-version-check
# PyPI's torch for Linux on x86-64 is a CUDA build of several gigabytes; the CPU build, 2.13.0+cpu, is on PyTorch's own index
# (a wheel that pip knows of from elsewhere, a folder or a mirror, does as well). With an NVIDIA GPU: make install TORCH=torch
ifeq ($(shell uname -sm),Linux x86_64)
TORCH ?= torch==2.13.0+cpu
else
TORCH ?= torch==2.13.0
endif
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
export HF_HUB_OFFLINE ?= 1

.PHONY: help install demo test test-long check quality bench clean

help:  ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: .venv/installed  ## Make .venv with everything in it

.venv/installed: pyproject.toml
	@echo "installing into .venv (once; a minute or two) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "searchapp needs Python 3.11 or newer: make PYTHON=...")'
	@$(PYTHON) -m venv .venv
	@$(PIP) install --quiet --retries 1 --no-deps $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) "$(TORCH)"
	@$(PIP) install --quiet --editable '.[dev]'
	@touch $@

demo: .venv/installed  ## Search Python's own documentation: start a server, ingest, ask
	@$(BIN)/searchapp demo

test: .venv/installed  ## Run the tests on a PostgreSQL of their own
	@$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-long: .venv/installed  ## The properties of searches for some ten minutes, ten thousand filters of any JSON, sources under fire for one
	@PROPERTY_EXAMPLES=4000 FILTER_EXAMPLES=10000 TORTURE_SECONDS=60 $(BIN)/python -m pytest tests/integration/test_right_rows.py tests/integration/test_filters.py tests/integration/test_filters_in_sql.py tests/integration/test_torture.py

check: .venv/installed  ## Lint, types, layers, compose file, migrations against models
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml deploy/docker-compose.worker.yml
	$(BIN)/python -m tests.alembic_check

quality: .venv/installed  ## What takes longer: SciFact, memory, thirty random kills
	@$(BIN)/python -m pytest -m quality -rA --durations=5 tests/quality

bench: .venv/installed  ## Measure against the goals (QUICK=1: a tenth; CORPUS=... VECTORS=...)
	@$(BIN)/python -m benchmarks $(if $(QUICK),--quick) $(if $(CORPUS),--corpus "$(CORPUS)") $(if $(VECTORS),--vectors "$(VECTORS)")

clean:  ## Remove .venv and what tools left behind
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
