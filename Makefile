# The two commands: `make serve` and `make test`. Each sets up all that it needs; the second run is quick.

PORT   ?= 3000
HOST   ?= 127.0.0.1
VENV   ?= .venv
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
            $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# onnxruntime-gpu where there is an NVIDIA driver, onnxruntime elsewhere.
ACCELERATOR ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
# How many tests run at a time.
JOBS   ?= 2
# What `make loadtest` measures, and how: options of `python -m loadtests.measure`.
URL    ?= http://127.0.0.1:$(PORT)
BIN := $(VENV)/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check
# Many tests have bounds in seconds, and other programs may have held the machine: what failed is run once more, alone.
AGAIN := test $$? = 1 && echo "What failed is run once more, on its own" && \
	$(BIN)/pytest -q --last-failed --last-failed-no-failures none
INSTALL := $(BIN)/python requirements/install.py $(if $(filter cpu,$(ACCELERATOR)),--cpu)

# What Python compiled is kept, also where a container says otherwise: tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help serve loadtest test check lint format lock models clean

help: ## Show this help
	@echo "zooserve: pretrained vision models, from checkpoint to a low-latency endpoint"
	@echo
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16
	@echo
	@echo "  PORT=8080 HOST=0.0.0.0 make serve   chooses the address; zooserve serve --help lists all settings"

serve: $(VENV)/.serve ## Fetch and convert the default models, then serve them on http://127.0.0.1:3000
	@$(BIN)/zooserve export --default
	@exec $(BIN)/zooserve serve --host $(HOST) --port $(PORT)

loadtest: $(VENV)/.loadtest ## Measure a running server: requests/s and latencies. URL=... names it, ARGS=... options
	@$(BIN)/python -m loadtests.measure --url $(URL) $(or $(ARGS),--seconds 2)

test: $(VENV)/.dev ## Check style, types and imports, then run all tests on the real models
	@# Each uses one core.
	@$(MAKE) --no-print-directory --jobs 2 lint models
	@# Files in the order of tests/slow.py: what takes longest begins first.
	@$(BIN)/pytest -q -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 30 --durations-min 5 -m 'not alone' || { $(AGAIN) -m 'not alone'; }
	@# What measures times is not disturbed by other tests.
	@$(BIN)/pytest -q -m alone || { $(AGAIN) -m alone; }
	@echo "ruff, mypy, import-linter and pytest passed"

check: $(VENV)/.dev ## In a minute: style, types, imports, and the tests that need no server, conversion or browser
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/lint-imports
	@# Types beside the tests: a core each.
	@$(BIN)/mypy & types=$$!; $(BIN)/pytest -q -n $(JOBS) -m 'not slow'; tests=$$?; wait $$types && exit $$tests

lint: $(VENV)/.dev ## Check style (ruff), types (mypy --strict) and who imports whom (import-linter)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.dev ## Format the code and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

lock: $(VENV)/.dev ## Renew the locks of all environments; ARGS=--upgrade takes the newest versions
	@PATH="$(abspath $(BIN)):$$PATH" requirements/lock $(ARGS)

models: $(VENV)/.dev
	@$(BIN)/zooserve export --default

clean: ## Remove the virtual environment and the exported models
	rm -rf $(VENV) models

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed, and none was found. Name one: make PYTHON=/path/to/python"; exit 1; }
	@echo "Making a virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/.serve: pyproject.toml requirements/serve-$(ACCELERATOR).txt requirements/export.txt | $(BIN)/python
	@echo "Installing zooserve and what it needs; this happens once"
	@# A Python's own pip may be too old to read the locks' markers quickly.
	@$(PIP) install --upgrade pip
	@$(INSTALL) serve-$(ACCELERATOR) export
	@PYTHONWARNINGS=ignore $(PIP) install --no-deps --build-constraint requirements/build.txt -e .
	@touch $@

$(VENV)/.loadtest: $(VENV)/.serve requirements/loadtests.txt
	@echo "Installing LoadGen, Locust and matplotlib; this happens once"
	@$(INSTALL) serve-$(ACCELERATOR) loadtests
	@touch $@

$(VENV)/.dev: $(VENV)/.serve requirements/dev.txt requirements/no-deps.txt
	@echo "Installing the tools for checks and tests"
	@$(INSTALL) serve-$(ACCELERATOR) export dev
	@# Clients that the tests speak with, libreyolo and YOLOX: without their own requirements, see requirements/lock.
	@$(INSTALL) no-deps --no-deps
	@touch $@
