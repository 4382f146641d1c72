# The two commands: `make serve` and `make test`. Each sets up all that it needs; the second run is quick.

PORT   ?= 3000
HOST   ?= 127.0.0.1
VENV   ?= .venv
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
            $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
# onnxruntime-gpu where there is an NVIDIA driver, onnxruntime elsewhere.
ACCELERATOR ?= $(shell nvidia-smi >/dev/null 2>&1 && echo gpu || echo cpu)
# Libraries that bring more models by name, for their tests; `make test FAMILIES=` leaves them out (and skips those).
FAMILIES ?= timm ultralytics libreyolo
BIN := $(VENV)/bin
empty :=
comma := ,

.DEFAULT_GOAL := help
.PHONY: help serve test lint format models clean

help: ## Show this help
	@echo "zooserve: pretrained vision models, from checkpoint to a low-latency endpoint"
	@echo
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 16
	@echo
	@echo "  PORT=8080 HOST=0.0.0.0 make serve   chooses the address; zooserve serve --help lists all settings"

serve: $(VENV)/.serve ## Fetch and convert the default models, then serve them on http://127.0.0.1:3000
	@$(BIN)/zooserve export --default
	@exec $(BIN)/zooserve serve --host $(HOST) --port $(PORT)

test: lint models ## Check style, types and imports, then run all tests on the real models
	@$(BIN)/pytest -q
	@echo "ruff, mypy, import-linter and pytest passed"

lint: $(VENV)/.dev ## Check style (ruff), types (mypy --strict) and who imports whom (import-linter)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

format: $(VENV)/.dev ## Format the code and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

models: $(VENV)/.dev
	@$(BIN)/zooserve export --default

clean: ## Remove the virtual environment and the exported models
	rm -rf $(VENV) models

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed, and none was found. Name one: make PYTHON=/path/to/python"; exit 1; }
	@echo "Making a virtual environment in $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "python -m venv failed; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

$(VENV)/.serve: pyproject.toml | $(BIN)/python
	@echo "Installing zooserve and what it needs (torch is about 5 GB; this happens once)"
	@# Older pips try combinations of OpenTelemetry's releases for minutes; a current one needs seconds.
	@$(BIN)/pip install --quiet --disable-pip-version-check --upgrade pip
	@$(BIN)/pip install --quiet --disable-pip-version-check -e '.[$(ACCELERATOR),export]'
	@touch $@

$(VENV)/.dev: $(VENV)/.serve pyproject.toml
	@echo "Installing the tools for checks and tests"
	@$(BIN)/pip install --quiet --disable-pip-version-check \
	  -e '.[$(subst $(empty) $(empty),$(comma),$(ACCELERATOR) export dev $(FAMILIES))]'
	@# Clients that the tests speak with; their own requirements name older libraries than ours.
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'tritonclient>=2.73' 'kserve>=0.21'
	@# Its own requirements name opencv-python, which would lie over opencv-python-headless.
	@case ' $(FAMILIES) ' in *' libreyolo '*) \
	  $(BIN)/pip install --quiet --disable-pip-version-check --no-deps 'libreyolo>=1.6' ;; esac
	@touch $@
