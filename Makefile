# Needs Python 3.11 to 3.13 and make; everything else is installed into $(VENV).
#   make demo   phantom data, the three phases, the baseline and the table, in runs/demo/
#   make test   lint, types and all tests

PYTHON   ?= python3
VENV     ?= .venv
DEMO_DIR ?= runs/demo
# Parallel test processes, one torch thread each; 0 runs the tests in one process.
WORKERS  ?= 2
# For example PYTEST_ARGS="-m 'not slow' tests/flows".
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo test lint types wheel clean
.DELETE_ON_ERROR:

help:
	@sed -n '2,3s/^#   //p' $(firstword $(MAKEFILE_LIST))
	@echo 'make lint | types | wheel | clean (keeps $(VENV) and runs/)'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else \
		f"{sys.executable} is Python {v[0]}.{v[1]}; 3.11 to 3.13 is needed. Try: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# One pip call each, so that the pins are checked against the ranges in pyproject.toml.
$(VENV)/.installed: requirements.txt pyproject.toml | $(BIN)/python
	$(PIP) install -r requirements.txt -e .
	@touch $@

$(VENV)/.installed-dev: requirements.txt requirements-dev.txt pyproject.toml | $(BIN)/python
	$(PIP) install -r requirements-dev.txt -e .
	@touch $(VENV)/.installed $@

$(DEMO_DIR)/dataset/dataset.json: | $(VENV)/.installed
	$(BIN)/python -m data_prep phantom --task prostate --output $(DEMO_DIR)/dataset --seed 0

demo: $(VENV)/.installed $(DEMO_DIR)/dataset/dataset.json
	$(BIN)/python -m mixstyleflow_monai run --dataset_dir $(DEMO_DIR)/dataset --output_dir $(DEMO_DIR) \
		--overlay demo --baseline

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed-dev
	$(BIN)/mypy

test: lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup $(PYTEST_ARGS)

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --no-isolation --outdir dist

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -path './$(VENV)' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
