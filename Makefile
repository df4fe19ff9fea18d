# Two commands for newcomers: `make demo` and `make test`. Both install into .venv on first use.
.DEFAULT_GOAL := help
.PHONY: help demo test lint types check bench report clean

PINS := pyproject.toml setup.py constraints.txt
NATIVE := CMakeLists.txt $(shell find csrc -type f)
BIN := .venv/bin
READY := .venv/.installed

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(READY) ## train a small network on drawn figures and show what it finds (minutes)
	$(BIN)/fastpose demo

# Small tensors: two processes of one thread are faster than one of two threads, which wait for each other.
TEST_JOBS ?= 2
test: export OMP_NUM_THREADS ?= 1
test: $(READY) ## run every test
	$(BIN)/python -m pytest tests -n $(TEST_JOBS) --dist loadfile --benchmark-disable

lint: $(READY) ## ruff
	$(BIN)/ruff check .

types: $(READY) ## mypy
	$(BIN)/mypy

check: lint types ## lint and types

bench: $(READY) ## measure against rivals and limits; bench/README.md has the options
	$(BIN)/python -m pytest bench --benchmark-only

report: $(READY) ## write docs/benchmarks.md and its plots from bench/results
	$(BIN)/python -m bench.report

clean: ## remove what was built, but keep the packages in .venv
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	rm -f fastpose/_C*.so fastpose/_C_missing.txt $(READY)

# A change of the pins installs everything again, a change of the C++ only rebuilds it.
$(READY): $(PINS) $(NATIVE)
	@test -x $(BIN)/python || { \
	  for python in $(PYTHON) python3 python3.12 python3.11 python3.13; do \
	    $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && exec $$python -m venv .venv; \
	  done; \
	  echo "fastpose needs Python 3.11 or newer; python3 is $$(python3 --version 2>&1)." \
	    "Install one, or run: make PYTHON=/path/to/python" >&2; exit 1; }
	$(BIN)/python -m pip install --disable-pip-version-check $(if $(filter $(PINS),$?),-c constraints.txt -e '.[dev]',--no-deps -e .)
	@$(BIN)/python -c "import fastpose; ok, why = fastpose.backend_status()['cpp']; print('C++ extension:', 'built' if ok else why)"
	@touch $@
