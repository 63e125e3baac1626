# Everything a developer does, with Python's venv and pip alone.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
ECOSYSTEM := .ecosystem/bin
ECOSYSTEM_STAMP := .ecosystem/.installed
SITE := .site/bin
SITE_STAMP := .site/.installed
# Two test processes, one torch thread each: faster on two cores than one process with two.
PYTEST_FLAGS ?= -n 2

.PHONY: setup demo test test-cpus coverage test-ecosystem check bench faults docs site clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/hairpin train

test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PYTEST_FLAGS)

# The tests of numbers as other processors compute them, from AVX2 up to what this one has. What is
# above it computes as it does.
CPUS := avx2:AVX2 avx512:AVX512_CORE avx512:AVX512_CORE_BF16 avx512:AVX512_CORE_AMX
NUMBERS := $(addprefix tests/test_,attention.py book_weights.py classifier.py compiled.py decode.py \
	doctor.py gelu.py generate.py gradients.py guard.py head.py model.py modern.py muon.py \
	optimizers.py pitfalls.py qwen3.py scaling.py step.py wide_reads.py)

test-cpus: $(STAMP)
	for cpu in $(CPUS); do \
	  echo "== $$cpu" && \
	  ATEN_CPU_CAPABILITY=$${cpu%:*} ONEDNN_MAX_CPU_ISA=$${cpu#*:} OMP_NUM_THREADS=1 \
	  $(BIN)/pytest -q $(PYTEST_FLAGS) $(NUMBERS) || exit 1; \
	done

# The same, tracing every line, which doubles what it costs.
coverage: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PYTEST_FLAGS) --cov --cov-report=term

# Against the real libraries that hairpin reads from and writes for, which are gigabytes.
test-ecosystem: $(ECOSYSTEM_STAMP)
	OMP_NUM_THREADS=1 $(ECOSYSTEM)/pytest $(PYTEST_FLAGS) ecosystem

$(ECOSYSTEM_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .ecosystem
	$(ECOSYSTEM)/pip install --quiet --constraint constraints.txt --editable '.[ecosystem]'
	touch $(ECOSYSTEM_STAMP)

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -q tests/test_layers.py tests/test_docs.py

docs: $(STAMP)
	$(BIN)/python -m hairpin.config.reference docs/config.md

# The documentation as a site in site/. It needs neither torch nor hairpin. With --quiet mkdocs would
# not see its own warnings, which --strict makes errors.
site: $(SITE_STAMP)
	NO_MKDOCS_2_WARNING=1 $(SITE)/mkdocs build --strict
	@echo "site/index.html; with search: $(SITE)/python -m http.server --directory site"

$(SITE_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .site
	$(SITE)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['docs'], sep='\n')" > .site/requirements.txt
	$(SITE)/pip install --quiet --constraint constraints.txt --requirement .site/requirements.txt
	touch $(SITE_STAMP)

# Longer, and not here: benchmarks.budget_choices, benchmarks.book_comparison (1.5 hours).
bench: $(STAMP)
	$(BIN)/python -m benchmarks.prepare_memory
	$(BIN)/python -m benchmarks.plan_check
	$(BIN)/python -m benchmarks.speed --out docs/benchmarks.md

faults: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/pytest $(PYTEST_FLAGS) -m hypothesis --hypothesis-profile search
	OMP_NUM_THREADS=1 $(BIN)/python -m faults --out docs/reliability-results.md

clean:
	rm -rf .venv .ecosystem .site site .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage* build dist
