PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help

help: ## Show the targets
	@grep -E '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: .venv/run ## Start the server on http://127.0.0.1:8000 with its own database in data/
	@exec $(BIN)/rns serve

test: .venv/test lint type imports ## Run everything that CI runs
	$(BIN)/pytest -n 3 --dist worksteal tests/unit tests/store tests/e2e
	$(MAKE) ferretdb

unit: .venv/test ## Tests of one process, without servers
	$(BIN)/pytest tests/unit

store: .venv/test ## Tests of the store, on mongomock and on a wire server
	$(BIN)/pytest tests/store

ferretdb: .venv/test ## Tests of the store on FerretDB, where .ci/run built it: a second opinion on our queries
	TEST_ENGINE=ferretdb $(BIN)/pytest -n 3 --dist worksteal -m wire tests/store

e2e: .venv/test ## Tests with a real registry, client and browser
	CI=true $(BIN)/pytest -n 3 --dist worksteal tests/e2e

lint: .venv/test ## Check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

type: .venv/test ## Check types
	$(BIN)/mypy app

imports: .venv/test ## Check which module imports which
	$(BIN)/lint-imports

mutants: .venv/test ## Which changed conditions of MODULE its TESTS do not notice; in a copy of the checkout
	$(BIN)/python benchmarks/mutants.py $(MODULE) $(TESTS)

translations: .venv/test ## Take new texts of pages into the catalogues, and compile them
	@mkdir -p build
	$(BIN)/pybabel -q extract -F babel.cfg -k lazy_gettext --no-location -o build/messages.pot .
	$(BIN)/pybabel -q update -i build/messages.pot -d app/translations --no-fuzzy-matching --ignore-obsolete --ignore-pot-creation-date -w 100
	$(BIN)/pybabel -q compile -d app/translations

screenshots: .venv/test ## Every page as it looks with the demonstration data, into build/screenshots/
	$(BIN)/python benchmarks/screenshots.py

pictures: .venv/test ## The parts of pages that docs/pages.md shows, into docs/images/
	$(BIN)/python benchmarks/screenshots.py parts

requirements: .venv/test ## Pin the newest releases anew
	$(BIN)/pip-compile -q --upgrade --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-find-links -o requirements.txt setup.cfg
	$(BIN)/pip-compile -q --upgrade --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-find-links -o requirements-embedded.txt requirements-embedded.in
	$(BIN)/pip-compile -q --upgrade --strip-extras --allow-unsafe --generate-hashes --no-emit-index-url --no-emit-find-links -o requirements-dev.txt requirements-dev.in

.venv/run: requirements.txt requirements-embedded.txt setup.cfg
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; set PYTHON=")'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q --disable-pip-version-check -r requirements.txt -r requirements-embedded.txt
	$(BIN)/pip install -q --disable-pip-version-check --no-deps -e .
	@touch $@

.venv/test: .venv/run requirements-dev.txt
	$(BIN)/pip install -q --disable-pip-version-check -r requirements-dev.txt
	@touch $@

clean: ## Remove what was installed and built; data/ stays
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

.PHONY: help run test unit store e2e lint type imports mutants translations screenshots pictures requirements clean
