# Everything a developer does, with Python's venv and pip alone.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Two test processes, one torch thread each: faster on two cores than one process with two.
PYTEST_FLAGS ?= -n 2

.PHONY: setup demo test check bench faults docs clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/hairpin train

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PYTEST_FLAGS) --cov --cov-report=term

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_layers.py tests/test_docs.py

docs: $(STAMP)
	$(BIN)/python -m hairpin.config.reference docs/config.md

# Longer, and not here: benchmarks.budget_choices, benchmarks.book_comparison (1.5 hours).
bench: $(STAMP)
	$(BIN)/python -m benchmarks.prepare_memory
	$(BIN)/python -m benchmarks.plan_check
	$(BIN)/python -m benchmarks.speed --out docs/benchmarks.md

faults: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m faults --out docs/reliability-results.md

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* build dist
