# Every target does its own set-up: a virtual environment, made again only when what is installed changes.
#   make PYTHON=python3.13 ...    another interpreter (3.11 or newer)
#   make test WORKERS=8           more test processes

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
NEWEST := .venv-newest
SANITIZED := .venv-sanitized
KERNELS := CMakeLists.txt $(wildcard semijax/native/*.cc semijax/native/*.h)

# The newest JAX needs Python 3.12. The first of these that runs (a pyenv shim may exist and not run).
NEWEST_PYTHON ?= $(shell \
	for python in python3.12 python3.13 python3.14 $(sort $(wildcard $(HOME)/.pyenv/versions/3.1[2-9]*/bin/python)); do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2> /dev/null; \
		then echo $$python; break; fi; \
	done)

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

demo: $(VENV)/demo.installed  ## train a small BERT, tell by which branch its gradients flow, write pictures
	$(VENV)/bin/python -m semijax.demo

test: $(VENV)/test.installed  ## run the tests, the docstrings' and the README's examples
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal

test-slow: $(VENV)/test.installed  ## run the tests that take minutes
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m slow

# It is about what differs between versions: XLA's optimizations and the notebooks are left to `test`.
# The native kernels are tested with both versions, what rests on them with the XLA form here.
test-newest: $(NEWEST)/test.installed  ## run the tests with the newest JAX (needs Python 3.12 or newer)
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 SEMIJAX_NATIVE=off $(NEWEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal --ignore=tests/test_notebooks.py
	JAX_DISABLE_MOST_OPTIMIZATIONS=1 SEMIJAX_NATIVE=baseline $(NEWEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal tests/native tests/test_devices.py

test-sanitized: $(SANITIZED)/test.installed  ## run the native kernels' tests under sanitizers
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 SEMIJAX_NATIVE=baseline \
	$(SANITIZED)/bin/python -m pytest tests/native/test_kernels.py

bench: $(VENV)/bench.installed  ## measure the costs next to jax.grad; writes benchmarks/results.json and the README's table
	$(VENV)/bin/python -m benchmarks --readme README.md

notebooks: $(VENV)/notebooks.installed  ## run the notebooks in full and store them with their pictures
	$(VENV)/bin/python notebooks/build.py

readme: $(VENV)/test.installed  ## run the README's python blocks
	$(VENV)/bin/python -m pytest tests/test_readme.py

lint: $(VENV)/lint.installed  ## check style and formatting
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check

types: $(VENV)/test.installed $(VENV)/lint.installed  ## check the types
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

clean:  ## delete the environments, the caches and what the demo wrote
	rm -rf $(VENV) $(NEWEST) $(SANITIZED) demo_output notebooks/output build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $* is the extra to install.
$(VENV)/%.installed: pyproject.toml $(KERNELS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'semijax needs Python 3.11 or newer: make PYTHON=python3.12 ...'; exit 1; }
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check --editable '.[$*]'
	@touch $@

$(SANITIZED)/%.installed: pyproject.toml $(KERNELS)
	test -x $(SANITIZED)/bin/pip || $(PYTHON) -m venv $(SANITIZED)
	CXXFLAGS='-fsanitize=address,undefined -fno-sanitize-recover=all -g' $(SANITIZED)/bin/python -m pip install \
		--disable-pip-version-check --editable '.[$*]' --config-settings=build-dir=build/sanitized
	@touch $@

$(NEWEST)/%.installed: pyproject.toml $(KERNELS)
	@test -n '$(NEWEST_PYTHON)' || \
		{ echo 'The newest JAX needs Python 3.12 or newer, and none was found: make NEWEST_PYTHON=... $(MAKECMDGOALS)'; exit 1; }
	test -x $(NEWEST)/bin/pip || $(NEWEST_PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --disable-pip-version-check --upgrade --editable '.[$*]'
	@touch $@

.DEFAULT_GOAL := help
.PHONY: help demo notebooks test test-slow test-newest test-sanitized bench readme lint types clean
.NOTPARALLEL:
.PRECIOUS: $(VENV)/%.installed $(NEWEST)/%.installed $(SANITIZED)/%.installed
