# Two commands: `make demo` shows an edited picture, `make test` runs the tests. `make help` lists the rest.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PEERS  := .venv-peers
PIP    := $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes
SELF   := $(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .

# Where it is set (as in many containers), everything is compiled anew: each of some 200 gateways that the tests start,
# and pytest's own view of 250 modules, in each worker.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo serve sandbox test test-pages lint format docs lock clean bench bench-peers

help: ## this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo ## edit a sample photo through a sandbox, with the real OpenAI SDK
	@$(BIN)/python -m app demo

serve: $(VENV)/.demo ## the gateway on 127.0.0.1:8000; without FAL_KEY it uses the sandbox
	@$(BIN)/python -m app serve

sandbox: $(VENV)/.demo ## a fal.ai stand-in on 127.0.0.1:8010
	@$(BIN)/python -m app sandbox

# Five workers, however many cores: half of the time a test waits, for a lease, a pause before a repeat, a time-out.
test: $(VENV)/.dev ## the suite, but for what needs a browser
	$(BIN)/python -m pytest -n 5 --dist worksteal --ignore=tests/web

test-pages: $(VENV)/.dev ## the pages in a real browser (apt-get install chromium nodejs npm)
	$(BIN)/python -m pytest -n 2 --dist loadfile tests/web

lint: $(VENV)/.dev ## ruff, mypy --strict, import contracts, hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

format: $(VENV)/.dev ## what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.dev ## write what of docs/ is derived from the code: settings, parameters
	$(BIN)/python -m tools.pages

lock: $(VENV)/.dev ## pin all dependencies anew, with hashes, naming no index
	$(BIN)/python tools/lock.py

bench: $(VENV)/.bench ## measure everything, about ten minutes: bench/RESULTS.md (BENCH=--quick: four)
	$(BIN)/python -m bench.run $(BENCH)

bench-peers: $(VENV)/.bench $(PEERS)/.done ## the same, and LiteLLM's proxy beside it
	$(BIN)/python -m bench.run --peers $(BENCH)

clean: ## forget the virtual environments
	rm -rf $(VENV) $(PEERS)

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "imagegate needs Python 3.11 or newer: make PYTHON=python3.11 …")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: requirements-demo.lock pyproject.toml | $(VENV)/bin/python
	$(PIP) -r requirements-demo.lock
	$(SELF)
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(VENV)/bin/python
	$(PIP) -r requirements-dev.lock
	$(SELF)
	@touch $(VENV)/.demo $@

$(VENV)/.bench: requirements-bench.lock $(VENV)/.dev
	$(PIP) -r requirements-bench.lock
	@touch $@

# other people's servers, which share nothing with ours
$(PEERS)/.done: bench/peers/requirements-peers.lock
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@
