# make demo   set up, then a real fine-tune on real data, ending in a verdict and a report
# make test   set up, then ruff, mypy and the tests but those that take long
# make test-long  those: whole runs, trainings killed and gone on with, planted corpora, clusters of Ray; CI runs both
# make bench  set up, then speed against sentence-transformers, the cost of an index, a service and a diagnosis, zero-shot figures and what training is worth (DATA='folder folder'), and how often the statistics err
# make wheel  build the wheel, install it into an empty environment outside the clone, and begin the demo there
# make setup  only .venv

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.ready

.PHONY: setup demo test test-long bench wheel lint browser clean

setup: $(STAMP)

# torch first and alone: its pinned release has a CPU build, a later one may bring gigabytes of CUDA.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "nearer needs Python 3.11 or later: make setup PYTHON=python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "setting up .venv (a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip install --quiet -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: setup
	@HF_HUB_OFFLINE=1 $(BIN)/nearer demo

lint: setup
	$(BIN)/ruff check src tests bench examples/plugin
	$(BIN)/ruff format --check src tests bench examples/plugin
	$(BIN)/mypy

# The dashboard is tested in a real browser: Debian's is installed where there is none and we may.
browser:
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
	echo "installing chromium for the tests of the dashboard"; \
	{ apt-get update -qq && apt-get install -qq -y chromium; } >/dev/null 2>&1 || \
	{ echo "the tests need chromium: sudo apt-get install chromium, then make test"; exit 2; }

PYTEST := HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: lint browser
	$(PYTEST) -m 'not long'

test-long: setup browser
	$(PYTEST) -m long

bench: setup
	HF_HUB_OFFLINE=1 $(BIN)/python bench/speed.py
	HF_HUB_OFFLINE=1 $(BIN)/python bench/index.py
	HF_HUB_OFFLINE=1 $(BIN)/python bench/serve.py
	HF_HUB_OFFLINE=1 $(BIN)/python bench/diagnose.py
	HF_HUB_OFFLINE=1 $(BIN)/python bench/quality.py $(or $(DATA),examples/cwe)
	HF_HUB_OFFLINE=1 $(BIN)/python bench/training.py $(or $(DATA),examples/cwe)
	OMP_NUM_THREADS=1 $(BIN)/python bench/error_rates.py
	OMP_NUM_THREADS=1 $(BIN)/python bench/clustered.py
	OMP_NUM_THREADS=1 $(BIN)/python bench/pooling.py

# What a user without a clone gets: everything anew from the registries, so it takes minutes.
wheel: setup
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && \
	$(BIN)/python -m pip wheel --quiet --no-deps -w "$$folder" . && \
	$(PYTHON) -m venv "$$folder/environment" && \
	"$$folder/environment/bin/python" -m pip install --quiet -c constraints.txt torch && \
	wheel=$$(ls "$$folder"/*.whl) && \
	"$$folder/environment/bin/python" -m pip install --quiet -c constraints.txt "$$wheel[demo]" && \
	cd "$$folder" && HF_HUB_OFFLINE=1 environment/bin/nearer demo $(DEMO)

clean:
	rm -rf .venv build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache
