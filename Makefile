# `make demo` shows what it does, `make test` proves it. Neither asks anything. Everything is made inside
# this folder, but for the Kafka jars, which are kept in the user's cache folder.
#
#   make demo    live → outage → buffering → kill -9 → restart → draining → live, on SQLite, no server
#   make test    all checks and all tests, with a real Kafka where java and mvn are there
#   make torture traffic while Kafka and the writer are killed, the model, the fuzzer (docs/testing.md); SEED=N, INPUTS=N
#   make asan    the tests of the spool with the extension under AddressSanitizer and UBSan; make torture does it too
#   make bench   all figures, in about half an hour on a quiet machine, and what docs and README show of them;
#                BENCH="NAME…" only those, the others stay as they were in build/bench
#   make screenshots  the pictures of mbtui that the docs show; NAMES="dashboard-light segment" others
#   make check   lint, format, types, direction of imports, docs
#   make docs    the documentation, in docs/_build/html
#   make clean   removes what was built; make distclean removes .venv too
#
# PYTHON=/path/to/python chooses the interpreter (3.11 or newer) of a new .venv.

VENV := .venv
BIN = $(VENV)/bin
CANDIDATES = $(if $(PYTHON),"$(PYTHON)",python3.14 python3.13 python3.12 python3.11 python3)
PIP = $(BIN)/python -m pip --disable-pip-version-check --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help demo test torture asan bench screenshots check lint types imports docs kafka clean distclean

help:
	@sed -n '/^#   /s/^#   //p' Makefile

demo: $(VENV)/.installed
	@$(BIN)/mb demo

# Side by side, since tests wait more than they work; WORKERS=0 runs them one after the other.
test: $(VENV)/.developed kafka check
	@$(BIN)/python -m pytest -rs --numprocesses=$(or $(WORKERS),4) --dist=loadgroup
	@echo "make: the spool once more, in plain Python"
	@MBFRAMEWORK_EXTENSION=off $(BIN)/python -m pytest -q --numprocesses=$(or $(WORKERS),4) --dist=loadgroup \
		tests/spool tests/engine/test_kill.py

torture: $(VENV)/.developed kafka asan
	@MBFRAMEWORK_TEST_MODEL=long $(BIN)/python -m pytest -q -s tests/model
	@$(BIN)/python -m tests.model.mutants --processes 2
	@MBFRAMEWORK_TEST_KIT=long $(BIN)/python -m pytest -q tests/conformance tests/tui/test_web.py
	@MBFRAMEWORK_TEST_EXAMPLES=long $(BIN)/python -m pytest -q tests/spool tests/engine/test_bundle.py \
		tests/providers/test_sqlite.py tests/test_*.py
	@MBFRAMEWORK_TEST_PACE=promised $(BIN)/python -m pytest -q -m alone
	@MBFRAMEWORK_TEST_PACE=promised MBFRAMEWORK_TEST_KIT=long $(BIN)/python -m pytest -q tests/providers \
		-k 'conformance or outage'
	@$(BIN)/python -m tests.torture.outage --seconds 300 --rate 3000 --broker-kills 3 --freeze 20 --writer-kills 2 \
		--seed $(or $(SEED),1)
	@$(BIN)/python -m tests.fuzz --inputs $(or $(INPUTS),1000000) --seed $(or $(SEED),1)
	@$(PIP) install --only-binary :all: atheris 2>/dev/null || \
		echo "make: no wheel of atheris for this Python, or no network: nothing is fuzzed guided by coverage"
	@! $(BIN)/python -c 'import atheris' 2>/dev/null || \
		$(BIN)/python -m tests.fuzz --atheris --seed $(or $(SEED),1) -- -runs=30000 -verbosity=0
	@$(BIN)/python -m tests.torture.exactly_once --seed $(or $(SEED),1)
	@$(BIN)/python -m tests.torture.kills --kills 300 --broker-kills 30 --seed $(or $(SEED),1)
	@$(BIN)/python -m tests.torture.parts
	@$(BIN)/python -m tests.torture.brokers --seed $(or $(SEED),1)
	@$(BIN)/python -m tests.torture.soak --weeks 4 --messages 3000000 --seed $(or $(SEED),1)
	@$(BIN)/python -m tests.torture.scale

asan: $(VENV)/.developed
	@$(BIN)/python -m tests.sanitize

bench: $(VENV)/.developed kafka
	@$(BIN)/mb bench run $(BENCH) --results build/bench
	@$(BIN)/mb bench report --results build/bench --plot docs/pictures/speed.svg $(PAGES:%=--into %)

# The pages with figures between <!-- mb bench: … --> and <!-- /mb bench -->.
PAGES = $(shell grep -rl --include='*.md' --exclude-dir=_build '^<!-- mb bench:' README.md docs)

screenshots: $(VENV)/.developed
	@$(BIN)/python -m tests.tui.pictures docs/pictures $(or $(NAMES),dashboard segment simulator)

check: lint types imports docs

lint: $(VENV)/.developed
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(VENV)/.developed
	@$(BIN)/mypy

imports: $(VENV)/.developed
	@$(BIN)/lint-imports --no-logo

docs: $(VENV)/.developed
	@$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo "docs: docs/_build/html/index.html"

# Downloads once; afterwards the cache has everything and no network is needed.
kafka: $(VENV)/.developed
	@[ -n "$$MBFRAMEWORK_TEST_KAFKA" ] || $(BIN)/python -m mbframework.testing.kafka --prepare >/dev/null || \
		echo "make: for the reason above, tests against a real Kafka are skipped"

# The stamps make a second run quick and free of the network.
# What the extension in C is made of: an editable install compiles it.
EXTENSION = hatch_build.py $(wildcard native/*)

$(VENV)/.installed: pyproject.toml $(EXTENSION) $(VENV)/.made
	@$(PIP) install --editable .
	@touch $@

$(VENV)/.developed: pyproject.toml $(EXTENSION) $(VENV)/.made
	@echo "make: installing the tools into $(VENV)"
	@$(PIP) install --editable '.[dev]'
	@touch $(VENV)/.installed $@

# A working .venv is kept; one that is broken, or too old, is made anew.
$(VENV)/.made:
	@if ! $(BIN)/python -c 'import pip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		for candidate in $(CANDIDATES); do \
			if "$$candidate" -c 'import ensurepip, venv, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
				echo "make: creating $(VENV) with $$("$$candidate" -V)"; \
				"$$candidate" -m venv --clear $(VENV) && touch $@ && exit 0; \
				exit 1; \
			fi; \
		done; \
		echo "make: no Python of 3.11 or newer with the venv module among: $(CANDIDATES)" >&2; \
		echo "make: install one (Debian, Ubuntu: apt-get install python3 python3-venv) or give PYTHON=/path/to/python" >&2; \
		exit 1; \
	fi
	@touch $@

clean:
	rm -rf build dist docs/_build .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find mbframework providers tui tests docs -name __pycache__ -type d -prune -exec rm -rf {} +

distclean: clean
	rm -rf $(VENV) mbframework/*.so providers/*/*.so
