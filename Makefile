# `make` alone lists the targets. ARGS is passed to the program that a target runs: make test ARGS="-k rpc -x"
PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# ADVISORIES=required: make lint fails where the service for known vulnerabilities cannot be reached. For CI.
ADVISORIES ?=
# Number of test processes: tests wait more than they compute. JOBS=0 runs tests one after the other, for a debugger.
JOBS ?= 3

BIN := $(VENV)/bin
# --no-input: a package index that requires a password fails at once instead of waiting for it.
PIP := $(BIN)/python -P -m pip --disable-pip-version-check --no-input
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header
SHIPPED := master worker proto grafana monitoring tools setup.py
CODE := $(SHIPPED) tests

.DEFAULT_GOAL := help
.PHONY: help up test lint format proto docs dashboards lock sbom tools bench soak chaos clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: $(VENV)/.runtime ## Run a master and a worker on this machine; needs only python3
	@exec $(BIN)/fleetpulse up $(ARGS)

test: $(VENV)/.dev tools ## Run every test except the long ones
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --durations 20 --durations-min 1 $(ARGS)

lint: $(VENV)/.dev ## Check style, types, layers, generated files, and the security of the code and its packages
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python tools/generate_proto.py --check
	$(BIN)/python tools/metrics_reference.py --check
	$(BIN)/python -m grafana.builder --check
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive $(SHIPPED)
	$(BIN)/python tools/check_locks.py $(if $(filter required,$(ADVISORIES)),--required)

format: $(VENV)/.dev ## Rewrite the code in the house style
	$(BIN)/ruff check --fix-only
	$(BIN)/ruff format

proto: $(VENV)/.dev ## Generate the protobuf code
	$(BIN)/python tools/generate_proto.py

docs: $(VENV)/.dev ## Generate docs/metrics.md from the code
	$(BIN)/python tools/metrics_reference.py

dashboards: $(VENV)/.dev ## Generate grafana/dashboards/ from grafana/builder/
	$(BIN)/python -m grafana.builder

lock: $(VENV)/.dev ## Pin the packages of requirements/*.in; make lock ARGS=--upgrade takes newer versions
	$(LOCK) $(ARGS) requirements/build.in -o requirements/build.txt
	$(LOCK) $(ARGS) requirements/runtime.in -o requirements/runtime.txt
	$(LOCK) $(ARGS) -c requirements/runtime.txt -c requirements/build.txt requirements/dev.in -o requirements/dev.txt

sbom: $(VENV)/.dev ## Write the bill of materials as CycloneDX; make sbom ARGS=FILE names the file
	@$(BIN)/python tools/sbom.py $(or $(ARGS),build/fleetpulse.cdx.json)

tools: ## Fetch Prometheus and other programs that tests run into .tools/
	@bash tools/fetch_tools.sh

bench: $(VENV)/.dev tools ## Run the benchmark
	@$(BIN)/python -m tests.bench $(ARGS)

soak: $(VENV)/.dev tools ## Run the long tests
	@$(BIN)/python -m pytest -m soak $(ARGS)

chaos: $(VENV)/.dev tools ## Run 50 rounds of each kind of failure under load, and check the results
	@$(BIN)/python -m tests.chaos $(ARGS)

clean: ## Remove everything that make created
	rm -rf $(VENV) .tools build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

# The files below record what is installed, so that the next command starts at once.
$(VENV)/.made:
	@sh tools/make_venv.sh '$(PYTHON)' '$(VENV)'
	@touch $@

$(VENV)/.runtime: requirements/runtime.txt requirements/build.txt setup.py | $(VENV)/.made
	@echo "Installing FleetPulse into $(VENV), once (about 20 seconds)"
	@$(PIP) install --quiet --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt setup.py | $(VENV)/.made
	@echo "Installing FleetPulse and its tools into $(VENV), once (about half a minute)"
	@$(PIP) install --quiet --require-hashes -r requirements/dev.txt
	@$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@ $(VENV)/.runtime
