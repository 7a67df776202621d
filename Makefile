# make serve: install everything and start the collector.   make test: install everything, compiled, and run the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Packages are installed without bytecode, which saves time, and their first import writes it. So Python must be allowed to write
# it: without bytecode each command needs twice the CPU time to start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve environment test test-one test-fast test-soak test-clients fidelity chaos install dist tarball wheels check format proto docs bench fuzz lock clean

# The first start is uncompiled, so it takes seconds. The next one is compiled: see deploy/install.py.
serve: $(VENV)/requirements.installed
	@$(BIN)/python deploy/install.py now
	$(BIN)/infrasage-collector serve $(ARGS)

# Several files run at a time, the longest first (tests/conftest.py). make test ARGS="-n0 -k NAME" runs one at a time.
# The end of the output lists the skipped tests, with the reason and how to run them.
test: install $(VENV)/dev.installed
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

# Run one file or test with the source as it is, without installing or compiling it: make test-one T=tests/unit/adapters/codec/test_wire.py
test-one: $(VENV)/dev.installed
	@test -n "$(T)" || { echo "T is empty: make test-one T=tests/unit/adapters/codec/test_wire.py, or T=FILE::TEST" >&2; exit 2; }
	PYTHONPATH=.:proto $(BIN)/python -m pytest -q -n 0 -m "" $(T) $(ARGS)

# Run the tests that need no server and are not slow, with the source as it is and few examples: see tests/support/skips.py.
test-fast: $(VENV)/dev.installed
	PYTHONPATH=.:proto $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder --hypothesis-profile=fast \
		-m "not ( kafka or clickhouse or redis or clients or program or slow or large or soak )" $(ARGS)

# Once a night: the tests that make test runs in a short form, at full length, and properties with 500 new examples.
test-soak: install $(VENV)/dev.installed
	$(BIN)/pytest -m soak -n auto --dist loadfile --no-loadscope-reorder --timeout=1800 $(ARGS)
	env -u CI $(BIN)/pytest tests/unit tests/contracts tests/conformance tests/integration/gateway -n auto --dist loadfile \
		--no-loadscope-reorder --hypothesis-profile=soak --timeout=1800 -m "not large" $(ARGS)

# Clients of other languages are built once into $PEERS. Those whose tools are missing are skipped, unless CI=true: docs/use/clients.md.
test-clients: install $(VENV)/dev.installed
	tests/clients/peers
	$(BIN)/pytest tests/clients -m clients --timeout=1200 -rs $(ARGS)

# Compare what is stored with what was sent, field by field, for 10,000 items of each kind on each route: docs/contribute/testing.md.
fidelity: install $(VENV)/dev.installed
	$(BIN)/pytest tests/fidelity -n 0 -q -rP --timeout=7200 --fidelity-items=10000 $(ARGS)

# Cause each fault alone, then random ones, with three brokers under load. The table goes into docs/internals/exactly-once.md.
chaos: install $(VENV)/dev.installed
	$(BIN)/pytest tests/system/test_chaos.py -n 0 -q -s --timeout=0 --chaos-seconds=300 $(ARGS)

# Everything that CI checks beside the tests: lint, types, import rules, generated files. It needs no compiled build.
check: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy adapters collector tests bench .ci/checks deploy
	PYTHONPATH=.:proto $(BIN)/lint-imports --no-cache
	# Compiled code that suspends while it handles an exception corrupts memory: ADR 0021.
	$(BIN)/python .ci/checks/compiled_handlers.py
	# An interpreted subclass of a compiled class raises TypeError, but only in the compiled program.
	$(BIN)/python .ci/checks/compiled_bases.py
	# Words that readers have stumbled over: the list is in the script.
	$(BIN)/python .ci/checks/plain_language.py
	$(BIN)/python proto/generate.py --check
	PYTHONPATH=.:proto $(BIN)/python docs/generate.py --check
	$(BIN)/python deploy/grafana/generate.py --check

format: $(VENV)/dev.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(VENV)/dev.installed
	$(BIN)/python proto/generate.py

# Generate from the source as it is, without compiling it.
docs: $(VENV)/dev.installed
	PYTHONPATH=.:proto $(BIN)/python docs/generate.py
	$(BIN)/python deploy/grafana/generate.py

# Fuzz every decoder, for any time: see tests/fuzz/run.py. The source is uncompiled, so that the fuzzer sees its coverage.
fuzz: $(VENV)/fuzz.installed
	PYTHONPATH=.:proto:tests $(BIN)/python tests/fuzz/run.py $(ARGS)

# Measure the cost of a record, also in other programs, which must be installed, and write docs/internals/performance.md.
bench: install $(VENV)/dev.installed $(VENV)/bench.installed
	$(BIN)/python bench/run.py $(ARGS)

# Install the package with its hot path compiled. It is built again if the source has changed.
install: $(VENV)/requirements.installed
	@$(BIN)/python deploy/install.py compiled
	@$(BIN)/infrasage-collector version

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; this is %d.%d: set PYTHON=" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@echo "making $(VENV): about a minute where pip has the packages in its cache, else the time to download 300 MB"
	@# The lock makes two simultaneous commands share one. A half-made environment is removed, since it would be used later.
	@flock Makefile sh -c 'test -d $(VENV) || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }'

# Stop if the environment's Python was removed or upgraded, is too old, or was not installed completely.
environment: | $(VENV)/bin/python
	@flock Makefile $(BIN)/python -c 'import sys, pip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "error: $(VENV) has no Python 3.11 or newer with pip that runs. Remove it, then repeat the command: rm -rf $(VENV)" >&2; exit 1; }

$(VENV)/requirements.installed: requirements.lock | environment
	@$(BIN)/python deploy/install.py requirements requirements.lock
	@touch $@

$(VENV)/dev.installed: requirements-dev.lock $(VENV)/requirements.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-dev.lock
	touch $@

$(VENV)/fuzz.installed: tests/fuzz/requirements.lock $(VENV)/dev.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r tests/fuzz/requirements.lock
	touch $@

$(VENV)/bench.installed: bench/requirements.lock $(VENV)/dev.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r bench/requirements.lock
	touch $@

# Build the source distribution and, from it, a wheel for this Python, compiled if there is a C compiler.
dist: $(VENV)/dev.installed
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

# Pack everything for a machine without a network: wheels of the collector and its requirements, a systemd unit, install.sh.
tarball: dist
	rm -rf build/infrasage-collector
	mkdir -p build/infrasage-collector/wheels
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock -d build/infrasage-collector/wheels
	cp dist/*.whl build/infrasage-collector/wheels/
	cp deploy/systemd/* LICENSE CHANGELOG.md build/infrasage-collector/
	tar --create --gzip --file dist/infrasage-collector-$$(uname -s -m | tr 'A-Z ' 'a-z-').tar.gz --directory build infrasage-collector

# Wheels for CPython 3.11 to 3.14 on x86-64 and aarch64, in manylinux containers: see [tool.cibuildwheel]. Needs Docker and uv.
wheels:
	uvx cibuildwheel@4.3.5 --platform linux --output-dir dist

# Pin new versions of all requirements with their hashes. Needs uv.
lock:
	uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 --group build pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 --group dev pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) build dist *.egg-info
