# `make demo` and `make test` set up all they need in .venv; everything else builds on these two.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check format results clean

demo: $(VENV)/demo.installed  ## a small network from training to ONNX with a report; then a sample clip with its object erased
	$(BIN)/tenfold demo
	$(BIN)/tenfold demo erase --picture docs/images/erase.jpg

test: $(VENV)/dev.installed  ## all tests; one thread a process, because the tests run in parallel
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto

check: $(VENV)/dev.installed  ## style, types, and the floors of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/dev.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

results: $(VENV)/dev.installed  ## docs/results.md from the recorded results
	$(BIN)/python benchmarks/write_results.py

$(VENV)/%.installed: pyproject.toml hatch_build.py $(wildcard src/tenfold/kernels/native/*.c)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
