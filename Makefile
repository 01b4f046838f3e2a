# Each command makes its own environment in .venv, from nothing but Python 3.11 and make.
PYTHON ?= python3
BACKEND ?= jax
BACKENDS ?= jax tensorflow torch
GPU_BACKENDS ?= jax torch
GPU_WORKERS ?= 4
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: demo gallery test test-all test-gpu lint docs clean

demo: $(VENV)/.demo-$(BACKEND)
	KERAS_BACKEND=$(BACKEND) $(BIN)/keras-ssm demo --out out

# Pictures of all presets, from the test parts of the data in DATA, and docs/gallery.md.
gallery: $(VENV)/.tests
	KERAS_BACKEND=$(BACKEND) $(BIN)/python tools/make_presets.py --redraw-all $(if $(DATA),--data $(DATA))

test: $(VENV)/.tests
	$(BIN)/python tools/run_suite.py $(BACKENDS)

test-all: $(VENV)/.tests
	$(BIN)/python tools/run_suite.py $(BACKENDS) --slow

# With the Python that is there, whose PyTorch or JAX finds the GPU: nothing is installed.
test-gpu:
	$(PYTHON) tools/run_suite.py $(GPU_BACKENDS) --gpu --workers $(GPU_WORKERS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# The documentation as a site, in out/site. It is made of text alone: no backend is needed.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	@echo "out/site/index.html; with search: $(PYTHON) -m http.server -d out/site"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo-%: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[$*,demo]'
	touch $@

$(VENV)/.tests: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e '.[jax,tensorflow,torch,triton,demo,convert,tests,dev]'
	touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) ruff
	touch $@

$(VENV)/.docs: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) mkdocs-material 'mkdocstrings[python]' ruff
	touch $@

clean:
	rm -rf $(VENV) out build dist
