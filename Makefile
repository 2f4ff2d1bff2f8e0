# kubevo's tasks. `make` or `make help` lists them. Everything is installed into .venv, from locks
# with hashes; nothing outside this folder is touched.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXAMPLE ?= examples/cartpole.yaml
DATA ?= kubevo-data
OUT ?=
ARGS ?=
TORCH := .venv-torch

.PHONY: help
help: ## List the tasks
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'
.DEFAULT_GOAL := help

# --- what users run -------------------------------------------------------------------------------

.PHONY: run
run: $(VENV)/.run ## Evolve EXAMPLE (examples/cartpole.yaml) on this machine, with live progress
	$(BIN)/kubevo run $(EXAMPLE) --data $(DATA) $(ARGS)
	@echo; echo "The command is $(BIN)/kubevo; put it on your PATH:  source $(BIN)/activate"

.PHONY: install
install: $(VENV)/.run ## Install the kubevo command into .venv

# --- what developers run --------------------------------------------------------------------------

.PHONY: test
test: check cluster-binaries debian-packages ## Lint, types, import contracts and every test but torch's
	$(BIN)/pytest -m "not torch" $(ARGS)

.PHONY: check
check: lint types imports ## Lint, types and import contracts

.PHONY: lint
lint: $(VENV)/.dev ## ruff: rules and format
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: types
types: $(VENV)/.dev ## mypy --strict
	$(BIN)/mypy

.PHONY: imports
imports: $(VENV)/.dev ## import-linter: the arrows between packages
	$(BIN)/lint-imports

.PHONY: test-torch
test-torch: $(TORCH)/.torch ## The torch backend's tests (installs some gigabytes into .venv-torch)
	$(TORCH)/bin/pytest -m torch tests/evaluator $(ARGS)

.PHONY: bench
bench: $(TORCH)/.torch ## Speed ratios beside their goals; OUT=file.json writes them too
	$(TORCH)/bin/python benchmarks/bench.py $(if $(OUT),--out $(OUT))

.PHONY: bench-operator
bench-operator: cluster-binaries ## 100 Experiments under one operator: CPU, memory, patches, resume time
	$(BIN)/python benchmarks/bench_operator.py $(ARGS)

.PHONY: bench-api
bench-api: $(VENV)/.dev ## The REST service under load: p99 latencies, memory, what a search notices
	$(BIN)/python benchmarks/bench_api.py $(ARGS)

.PHONY: serve
serve: $(VENV)/.api ## Show the runs in DATA in the browser
	$(BIN)/kubevo serve $(DATA) $(ARGS)

.PHONY: results
results: $(VENV)/.run ## Run the searches behind docs/results.md again (about an hour)
	$(BIN)/python benchmarks/results.py $(ARGS)

.PHONY: format
format: $(VENV)/.dev ## Format the code and sort its imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: cluster-binaries
cluster-binaries: $(VENV)/.dev ## Build the Kubernetes control plane that the tests use (once, some minutes)
	$(BIN)/python tests/cluster/binaries.py

# Programs that the tests drive for real. Without them, and outside CI, those tests are skipped.
DEBIAN := prometheus chromium
.PHONY: debian-packages
debian-packages: ## Install what the tests need of Debian: prometheus, chromium (as root)
	@missing=""; for name in $(DEBIAN); do command -v $$name >/dev/null || missing="$$missing $$name"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null; \
	else echo "not installed:$$missing; the tests that need them are skipped (on Debian: apt-get install$$missing)"; fi

.PHONY: crd
crd: $(VENV)/.dev ## Write crds/ and the field reference anew, from the spec's models
	$(BIN)/python -m kubevo_operator.crd > crds/experiments.yaml
	$(BIN)/python -m kubevo_operator.crd --markdown > docs/reference-experiment.md

.PHONY: monitoring
monitoring: $(VENV)/.dev ## Write the dashboard, the alerts and the metrics reference anew
	$(BIN)/python -m kubevo_operator.monitoring

.PHONY: lock
lock: $(VENV)/.dev ## Resolve the locks in requirements/ anew
	for name in dev run api torch; do \
	  case $$name in \
	    dev) extras="--extra dev --extra operator --extra api";; \
	    run) extras="-c requirements/dev.lock";; \
	    api) extras="--extra api -c requirements/dev.lock";; \
	    torch) extras="--extra dev --extra operator --extra api --extra torch -c requirements/dev.lock";; \
	  esac; \
	  $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
	    --no-annotate --no-emit-index-url --extra build --extra evaluator --extra cli --extra local \
	    $$extras pyproject.toml -o requirements/$$name.lock; \
	done

.PHONY: clean
clean: ## Remove the virtual environments and caches; data and results stay
	rm -rf $(VENV) $(TORCH) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis

# --- virtual environments -------------------------------------------------------------------------
# A stamp file per set of dependencies: .dev contains .api, which contains .run.

define create_venv
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else f"kubevo needs Python 3.11, 3.12 or 3.13, but $(PYTHON) is {sys.version.split()[0]}; choose one: make PYTHON=python3.12 ...")'
	@test -x $(1)/bin/pip || $(PYTHON) -m venv $(1) || { rm -rf $(1); echo "Python's venv module does not work here; on Debian: apt-get install python3-venv" >&2; exit 1; }
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/$(2).lock
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(1)/.$(2)
endef

$(VENV)/.run: requirements/run.lock pyproject.toml
	$(call create_venv,$(VENV),run)

$(VENV)/.api: requirements/api.lock pyproject.toml
	$(call create_venv,$(VENV),api)
	touch $(VENV)/.run

$(VENV)/.dev: requirements/dev.lock pyproject.toml
	$(call create_venv,$(VENV),dev)
	touch $(VENV)/.run $(VENV)/.api

$(TORCH)/.torch: requirements/torch.lock pyproject.toml
	$(call create_venv,$(TORCH),torch)
