# Two commands: `make demo` and `make test`. Both make the environment first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
FASHION := /usr/share/datasets/fashion-mnist/train-images-idx3-ubyte.gz
DEMO_ARGS ?=
# Files are dealt out whole, as their fixtures train runs.
TEST_ARGS ?= -n 2 --dist loadfile
# No test runs them whole: that what they call is still there is checked by types.
SCRIPTS := benchmarks examples scripts experiments $(patsubst %/,%,$(sort $(dir $(wildcard experiments/*/*.py))))
# Not --quiet: that silences the warnings that --strict counts.
SITE := NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: help demo test docs lint slow mutants gpu fashion-mnist clean

help:
	@echo "make demo     environment, data, train and evaluate three methods, table and report"
	@echo "make test     environment, lint, types, layers, site, tests"
	@echo "make docs     the site, in site/index.html"
	@echo "make slow     the tests that take minutes"
	@echo "make mutants  break losses, metrics, core and ranks, 5,500 ways; each must be noticed (those that changed: minutes; all: hours)"
	@echo "make gpu      on a CUDA card: its tests and benchmarks, into benchmarks/gpu.md"
	@echo "make clean    remove the environment and caches (runs/ stays)"

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -q -e ".[dev]"
	@touch $@

# On Debian as root the package is a matter of seconds; elsewhere the demo downloads the images.
fashion-mnist:
	@if [ ! -e $(FASHION) ] && [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		(apt-get update -qq && apt-get install -y -qq dataset-fashion-mnist) >/dev/null 2>&1 \
		|| echo "Debian's dataset-fashion-mnist could not be installed; trying other sources"; \
	fi

demo: $(VENV)/ready fashion-mnist
	$(BIN)/rince demo $(DEMO_ARGS)

test: $(VENV)/ready fashion-mnist
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	for folder in $(SCRIPTS); do MYPYPATH=src:experiments/cifar100 \
		$(BIN)/mypy --config-file scripts/mypy.ini $$folder/*.py || exit 1; done
	$(BIN)/lint-imports
	$(SITE)
	$(BIN)/python -m pytest $(TEST_ARGS)

docs: $(VENV)/ready
	$(SITE)

slow: $(VENV)/ready
	$(BIN)/python -m pytest -m slow

mutants: $(VENV)/ready
	$(BIN)/python tests/mutants.py --all

gpu: $(VENV)/ready
	PYTHONPATH=src $(BIN)/python benchmarks/gpu.py --output benchmarks/gpu.md --budget 1800

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache site
