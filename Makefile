# Every target sets up its own environment: a machine needs Python >= 3.11 with pip, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup run test check sim bench clean

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "BalsaDB needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(READY)

# A three-node cluster on this machine; Ctrl-C ends it.
run: $(READY)
	$(BIN)/balsadb demo

# All tests, the slow ones with real processes too. They want redis-server and redis-tools installed.
test: $(READY)
	$(BIN)/python -m pytest -q

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Random simulated clusters. SEED=n repeats a whole run.
sim: $(READY)
	$(BIN)/balsadb sim --runs $(or $(RUNS),500) $(if $(SEED),--seed $(SEED))

# Beside etcd and Redis; wants etcd-server, redis-server, redis-tools and Go.
bench: $(READY)
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/failover.py
	$(BIN)/python benchmarks/storage.py

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
