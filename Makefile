# Every target sets up its own environment: a machine needs Python >= 3.11 with pip, and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup run test check sim fuzz dist bench clean

setup: $(READY)

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "BalsaDB needs Python 3.11 or newer; set PYTHON=python3.x")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $(READY)

# A three-node cluster on this machine; Ctrl-C ends it.
run: $(READY)
	$(BIN)/balsadb demo

# All tests but those of the simulator's seeds and bugs on purpose, which `make sim` runs. The slow ones with
# real processes too; they want redis-server, redis-tools and chromium installed.
test: $(READY)
	$(BIN)/python -m pytest -q --ignore=tests/mutants

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

# Random simulated clusters, then every bug on purpose. SEED=n repeats the clusters of a run.
sim: $(READY)
	$(BIN)/balsadb sim --runs $(or $(RUNS),500) $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m pytest -q tests/mutants

# Hostile input for every decoder, SECONDS each (20), or INPUTS each. TARGET="resp_requests peer_frames" chooses.
fuzz: $(READY)
	PYTHONPATH=tests $(BIN)/python -m fuzz $(TARGET) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(INPUTS),--inputs $(INPUTS))

# A wheel and an sdist in dist/, to be installed elsewhere.
dist: $(READY)
	$(BIN)/python -m hatchling build

# Beside etcd and Redis; wants etcd-server, redis-server, redis-tools and Go.
bench: $(READY)
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/failover.py
	$(BIN)/python benchmarks/storage.py

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
