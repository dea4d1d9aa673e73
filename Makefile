# make setup   a virtual environment in .venv with pinned dependencies; then .venv/bin/epigraph runs
# make demo    setup, then the whole path on real data
# make test    setup, then the whole test suite, lint and types
# make lint    setup, then ruff and mypy only

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2

.PHONY: setup demo test test-slow lint clean
setup: $(READY)

$(READY): constraints.txt pyproject.toml
	@test -n "$(PYTHON)" || { echo "Epigraph needs Python 3.11, 3.12 or 3.13; none was found. Set PYTHON=/path/to/python3.11."; exit 2; }
	$(PYTHON) -m venv .venv
	$(PIP) install --quiet -c constraints.txt torch==2.13.0
	$(PIP) install --quiet -c constraints.txt hatchling editables
	$(PIP) install --quiet --no-build-isolation -c constraints.txt -e ".[dev]"
	@touch $(READY)

demo: setup
	$(BIN)/epigraph demo

test: lint
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis
