# make serve: install everything and start the collector.   make test: install everything, compiled, and run the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# The packages come without bytecode, so that they are installed sooner: their first import writes it. Without it each command
# takes twice its CPU time to begin.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve environment test test-one test-fast test-soak test-clients fidelity chaos install dist tarball wheels check format proto docs bench fuzz lock clean

# Uncompiled at first, which takes seconds; compiled from the next start on: deploy/install.py.
serve: $(VENV)/requirements.installed
	@$(BIN)/python deploy/install.py now
	$(BIN)/infrasage-collector serve $(ARGS)

# Some files at a time, the longest first (tests/conftest.py); make test ARGS="-n0 -k NAME" for one at a time.
# At its end it says what was skipped, why, and how to run it.
test: install $(VENV)/dev.installed
	$(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder $(ARGS)

# One file or test, of the source as it is: nothing is installed or compiled. make test-one T=tests/unit/adapters/codec/test_wire.py
test-one: $(VENV)/dev.installed
	@test -n "$(T)" || { echo "T is empty: make test-one T=tests/unit/adapters/codec/test_wire.py, or T=FILE::TEST" >&2; exit 2; }
	PYTHONPATH=.:proto $(BIN)/python -m pytest -q -n 0 -m "" $(T) $(ARGS)

# What needs no server and is not slow, of the source as it is, with few examples of each property: tests/support/skips.py.
test-fast: $(VENV)/dev.installed
	PYTHONPATH=.:proto $(BIN)/python -m pytest -q -n auto --dist loadfile --no-loadscope-reorder --hypothesis-profile=fast \
		-m "not ( kafka or clickhouse or redis or clients or program or slow or large or soak )" $(ARGS)

# Once a night, or by hand: what make test has in a short form, at length; and properties with 500 examples, other ones each time.
test-soak: install $(VENV)/dev.installed
	$(BIN)/pytest -m soak -n auto --dist loadfile --no-loadscope-reorder --timeout=1800 $(ARGS)
	env -u CI $(BIN)/pytest tests/unit tests/contracts tests/conformance tests/integration/gateway -n auto --dist loadfile \
		--no-loadscope-reorder --hypothesis-profile=soak --timeout=1800 -m "not large" $(ARGS)

# Clients of other languages, built once into $PEERS; without CI=true those whose tools are missing are skipped: docs/use/clients.md.
test-clients: install $(VENV)/dev.installed
	tests/clients/peers
	$(BIN)/pytest tests/clients -m clients --timeout=1200 -rs $(ARGS)

# Field by field, what is stored against what was sent, in 10,000 items of each kind by each way in: docs/contribute/testing.md.
fidelity: install $(VENV)/dev.installed
	$(BIN)/pytest tests/fidelity -n 0 -q -rP --timeout=7200 --fidelity-items=10000 $(ARGS)

# Every fault by itself, then faults at random, against three brokers under load; the table goes into docs/internals/exactly-once.md.
chaos: install $(VENV)/dev.installed
	$(BIN)/pytest tests/system/test_chaos.py -n 0 -q -s --timeout=0 --chaos-seconds=300 $(ARGS)

# Everything that CI checks beside the tests: lint, types, import rules, generated files. Of the source: nothing need be compiled.
check: $(VENV)/dev.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy adapters collector tests bench .ci/checks deploy
	PYTHONPATH=.:proto $(BIN)/lint-imports --no-cache
	# Compiled code that suspends while it handles an exception corrupts memory: ADR 0021.
	$(BIN)/python .ci/checks/compiled_handlers.py
	# An interpreted subclass of a compiled class raises TypeError, in the compiled program alone.
	$(BIN)/python .ci/checks/compiled_bases.py
	# Words that readers have stumbled over, in docstrings, comments and pages: the list is in the script.
	$(BIN)/python .ci/checks/plain_language.py
	$(BIN)/python proto/generate.py --check
	PYTHONPATH=.:proto $(BIN)/python docs/generate.py --check
	$(BIN)/python deploy/grafana/generate.py --check

format: $(VENV)/dev.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(VENV)/dev.installed
	$(BIN)/python proto/generate.py

# Of the source as it is, so that nothing is compiled for it.
docs: $(VENV)/dev.installed
	PYTHONPATH=.:proto $(BIN)/python docs/generate.py
	$(BIN)/python deploy/grafana/generate.py

# Every decoder under a fuzzer, as long as one likes: see tests/fuzz/run.py. Uncompiled, so that it sees what is covered.
fuzz: $(VENV)/fuzz.installed
	PYTHONPATH=.:proto:tests $(BIN)/python tests/fuzz/run.py $(ARGS)

# What a record costs, beside others who have to be there, and docs/internals/performance.md of it: see there, and bench/run.py.
bench: install $(VENV)/dev.installed $(VENV)/bench.installed
	$(BIN)/python bench/run.py $(ARGS)

# The package itself, its hot path compiled. A source that changed means a new build.
install: $(VENV)/requirements.installed
	@$(BIN)/python deploy/install.py compiled
	@$(BIN)/infrasage-collector version

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; this is %d.%d: set PYTHON=" % sys.version_info[:2] if sys.version_info < (3, 11) else 0)'
	@echo "making $(VENV): about a minute where pip has the packages in its cache, else the time to download 300 MB"
	@# Two commands at once make one. Half an environment would be taken for a whole one.
	@flock Makefile sh -c 'test -d $(VENV) || $(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }'

# An environment whose Python was removed or upgraded, or is too old, or that was broken off.
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

# The source distribution, and the wheel that is built from it with this Python, compiled where there is a C compiler.
dist: $(VENV)/dev.installed
	rm -rf dist
	$(BIN)/python -m build --outdir dist .

# Everything for a machine without the network: wheels of the collector and of what it needs, a unit for systemd, install.sh.
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

# New versions of everything, pinned with their hashes. Needs uv.
lock:
	uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 --group build pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 --group dev pyproject.toml -o requirements-dev.lock

clean:
	rm -rf $(VENV) build dist *.egg-info
