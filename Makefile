# Two commands do all the set-up: `make up` and `make test`. Nothing but Python 3.11 has to be there.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help up test check unit integration acceptance lock clean
.DEFAULT_GOAL := help

help: ## show what can be made
	@grep -hE '^[a-z.]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z.]+):.*## /\1\t/' | expand -t 14

up: .venv ## start everything on this machine, embedded; Ctrl-C stops it
	@exec $(BIN)/godot up

test: check unit integration acceptance ## run every check and every test

check: .venv ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: .venv ## tests on the mock clock
	$(BIN)/pytest --ignore tests/integration --ignore tests/acceptance

integration: .venv ## tests on real Redis and PostgreSQL
	$(BIN)/pytest tests/integration

acceptance: .venv ## tests of the programs as a user runs them
	$(BIN)/pytest tests/acceptance

# The stamp is written last, so that a set-up which was cut off is begun again.
.venv: .venv/complete ## make the virtual environment and install the project into it
.venv/complete: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Godot needs Python 3.11 or newer; run make PYTHON=python3.11")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

lock: ## pin the newest versions that pyproject.toml allows
	$(PYTHON) -m pip install --quiet --target .uv uv
	PYTHONPATH=.uv $(PYTHON) -m uv pip compile pyproject.toml --extra embedded --extra dev --upgrade \
		--generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --output-file requirements.lock
	rm -rf .uv

clean: ## remove what was made here (not the data of `godot up`)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
