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
# Folder of a tracked run, and the port of its board.
RUN  ?= $(DEMO_DIR)
PORT ?= 5000
# MONAI Label: its environment and Python, the images to label, and phase 3's weights (default: the bundle's own).
LABEL_VENV   ?= .venv-label
LABEL_PYTHON ?= python3.11
STUDIES ?=
WEIGHTS ?=
FLOWS   ?=
LABEL_PORT ?= 8111
LABEL_APP ?= runs/monai_label

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: help demo test lint types wheel clean mlflow-ui label studies test-label
.DELETE_ON_ERROR:

help:
	@sed -n '2,3s/^#   //p' $(firstword $(MAKEFILE_LIST))
	@echo 'make lint | types | wheel | label | test-label | clean (keeps $(VENV) and runs/)'

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else \
		f"{sys.executable} is Python {v[0]}.{v[1]}; 3.11 to 3.13 is needed. Try: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

# One pip call each, so that the pins are checked against the ranges in pyproject.toml. Nothing is compiled here: Python
# compiles what it imports, and most of what is installed never is.
$(VENV)/.installed: requirements.txt pyproject.toml | $(BIN)/python
	$(PIP) install --no-compile -r requirements.txt -e .
	@touch $@

# All is compiled before the tests, since a package's SyntaxWarning, which comes with compiling, would fail one. Some
# packages hold files that are meant for another Python.
$(VENV)/.installed-dev: requirements.txt requirements-dev.txt pyproject.toml | $(BIN)/python
	$(PIP) install --no-compile -r requirements-dev.txt -e .
	@$(BIN)/python -W ignore -m compileall -qq -j 0 $(VENV)/lib || true
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

# The board of a run made with --tracking mlflow, for example make mlflow-ui RUN=runs/demo
mlflow-ui: $(VENV)/.installed
	@test -f "$(RUN)/mlruns.db" || { echo "$(RUN)/mlruns.db: no such file. Give RUN=FOLDER, the --output_dir of a run" \
		"with --tracking mlflow; runs kept on a server are on that server's board." >&2; exit 1; }
	MLFLOW_DISABLE_TELEMETRY=true $(BIN)/python -m mlflow server --host 127.0.0.1 --port $(PORT) --workers 1 \
		--backend-store-uri "$$($(BIN)/python -c 'import sys, pathlib; print("sqlite:///" + str(pathlib.Path( \
			sys.argv[1]).absolute() / "mlruns.db").replace("%", "%25").replace("?", "%3F"))' "$(RUN)")"

# MONAI Label needs older packages than the rest, and so an environment of its own, of 4 GB.
$(LABEL_VENV)/.installed: tools/monai_label/setup.sh tools/monai_label/requirements.txt
	tools/monai_label/setup.sh "$(LABEL_VENV)" "$(LABEL_PYTHON)"
	@touch $@

# The server on this machine, for example make label STUDIES=images WEIGHTS=runs/demo/phase3
studies:
	@test -d "$(STUDIES)" || { echo "STUDIES=$(STUDIES): no such folder. Give STUDIES=FOLDER, the images to label" >&2; exit 1; }

label: studies $(LABEL_VENV)/.installed
	$(LABEL_VENV)/bin/python tools/monai_label/serve.py --studies "$(STUDIES)" --port $(LABEL_PORT) \
		--app "$(LABEL_APP)" $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(FLOWS),--flows "$(FLOWS)")

test-label: $(VENV)/.installed-dev $(LABEL_VENV)/.installed
	MONAI_LABEL_PYTHON="$(abspath $(LABEL_VENV))/bin/python" OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/label

wheel: $(VENV)/.installed-dev
	$(BIN)/python -m build --no-isolation --outdir dist

clean:
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache *.egg-info
	find . -path './$(VENV)' -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
