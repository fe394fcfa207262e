# Everything runs from .venv, which the first command makes; nothing needs an activated environment.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed
# Python keeps what it has compiled: without that every process spends ten more seconds on imports.
unexport PYTHONDONTWRITEBYTECODE
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
QUICKLY := --require-hashes --no-deps --no-compile
NOTEBOOKS = $$(find notebooks -name '*.ipynb' -not -path '*/.ipynb_checkpoints/*' | sort)

# What `make lock` needs: the resolver, the sha256 of the CPU build of torch for Linux x86-64 and
# Python 3.11 (it has the same version as the builds the resolver sees, but is not among them), and
# the packages that only CUDA builds of torch ask for.
UV := uv==0.13.9
TORCH_CPU_SHA256 := 6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b
CUDA_PACKAGES := cuda-bindings cuda-toolkit nvidia-cudnn-cu13 nvidia-cusparselt-cu13 \
    nvidia-nccl-cu13 nvidia-nvshmem-cu13 triton

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help run lab lessons docs test check bench nightly fix lock clean

help:
	@echo "make run    run the five notebooks on the sample, as it is and repaired: two minutes"
	@echo "make lab    open the first notebook in JupyterLab"
	@echo "make lessons  make exercises and solutions of the course from their sources"
	@echo "make docs   build the pages: notebooks, lessons, glossary, reference (build/site/index.html)"
	@echo "make test   run the tests, with coverage"
	@echo "make check  lint, formatting, types, stripped notebooks, spelling, pins and licences"
	@echo "make nightly  the fuzz tests with 10,000 examples each, and 8 runs at once, 5 times over"
	@echo "make bench  measure the usual way and ours in turns (BENCH_FLAGS=...), print one table"
	@echo "make fix    mend what make check can mend by itself"
	@echo "make lock   pin all dependencies again in requirements.lock (LOCK_FLAGS=--upgrade: newest)"
	@echo "make clean  remove .venv, caches and build outputs; runs/ stays"
	@echo "The first of these installs what is needed into .venv (PYTHON=... chooses the Python)."

# The two runs share the cores: a run on all of them is hardly faster than on half of them. If one
# fails or is interrupted, the other ends too.
run: SHELL := bash
run: $(STAMP)
	@set -o pipefail; name=quickstart-$$(date +%Y%m%d-%H%M%S); \
	echo "Two runs on the shipped sample, side by side: the base model as it is, which cannot read the"; \
	echo "texts and loses to counting characters, and repaired, with words that a dictionary explains."; \
	echo "Then notebook 5 compares them. Some two minutes on two cores, without network; nothing is"; \
	echo "opened. The reports say what may be claimed."; \
	export OMP_WAIT_POLICY=passive OMP_NUM_THREADS=$$($(BIN)/python -c \
	    'from workbench.machine import core_count; print(core_count())'); \
	test="-p candidates data/sample_pairs.lists.jsonl"; \
	OMP_NUM_THREADS=$$(((OMP_NUM_THREADS + 1) / 2)) \
	    $(BIN)/workbench run notebooks/parameters/quickstart.yaml --name "$$name" $$test \
	    > >(sed -u 's/^/as it is | /') 2>&1 & first=$$!; \
	trap 'kill $$first 2> /dev/null' EXIT; \
	$(BIN)/workbench run notebooks/parameters/quickstart_repaired.yaml --name "$$name-repaired" \
	    $$test 2>&1 | sed -u 's/^/repaired | /' && wait $$first && \
	$(BIN)/python -m workbench.batch.execute "runs/$$name-repaired" "runs/$$name"

lab: $(STAMP)
	@$(BIN)/jupyter lab notebooks/01_inspect_data.ipynb

lessons: $(STAMP)
	@$(BIN)/python -m tests.lessons.figures
	@$(BIN)/python notebooks/lessons/make.py build

docs: $(STAMP)
	@$(BIN)/python docs/site/make.py build/site

test: $(STAMP)
	@# a Ray cluster takes all cores while it starts: its tests come alone
	export HF_HUB_OFFLINE=1; \
	$(BIN)/python -m pytest -m cluster --cov --cov-report= --cov-fail-under=0 && \
	$(BIN)/python -m pytest -m "not cluster" -n auto --dist worksteal \
	    --cov --cov-append --durations=40

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy workbench notebooks/lessons/make.py
	$(BIN)/lint-imports
	@test -n "$(NOTEBOOKS)" || { echo "no notebooks found" >&2; exit 1; }
	$(BIN)/nbstripout --verify $(NOTEBOOKS)
	$(BIN)/codespell
	$(BIN)/python -m tests.audit_lock

nightly: $(STAMP)
	FUZZ_EXAMPLES=10000 $(BIN)/python -m pytest tests/data/test_fuzz.py
	$(BIN)/python -m tests.benchmarks.at_once 8 5

bench: $(STAMP)
	$(BIN)/python -m tests.benchmarks.bench $(BENCH_FLAGS)

fix: $(STAMP)
	$(BIN)/nbstripout $(NOTEBOOKS)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "Python 3.11 or newer is needed, but '$(PYTHON)' is" \
	        "$$($(PYTHON) --version 2>&1). Name another: make PYTHON=python3.11 ..." >&2; \
	    exit 1; }
	@$(PYTHON) -m venv .venv

# pip rates an index's file above one in a folder it is told to look in (find-links), such as a
# CPU build of torch: so the folder is asked first. Where there is none, this does nothing.
# Nothing is compiled beforehand: of 30,000 modules few are ever imported.
$(STAMP): requirements.lock pyproject.toml | .venv/bin/python
	@echo "Installing the pinned packages into .venv, once: a few minutes; torch is the largest."
	@sed -n '/^torch==/,/^    #/p' requirements.lock > .venv/torch.txt
	@$(PIP) install $(QUICKLY) --no-index -r .venv/torch.txt 2> /dev/null || true
	@$(PIP) install $(QUICKLY) -r requirements.lock
	@echo "Installing the workbench itself."
	@$(PIP) install --no-build-isolation -e .
	@$(PIP) check
	@touch $@

lock:
	@echo "Resolving all dependencies with $(UV): about a minute."
	@set -e; scratch=$$(mktemp -d); trap 'rm -rf "$$scratch"' EXIT; \
	$(PYTHON) -m venv "$$scratch/venv"; \
	"$$scratch/venv/bin/python" -m pip --disable-pip-version-check -qq install $(UV); \
	printf '%s\n' $(CUDA_PACKAGES) > "$$scratch/excludes"; \
	if [ -f requirements.lock ]; then \
	    sed '/$(TORCH_CPU_SHA256)/d' requirements.lock > "$$scratch/lock"; fi; \
	"$$scratch/venv/bin/uv" pip compile pyproject.toml requirements.in --extra dev --extra docs \
	    --universal --python-version 3.11 --fork-strategy fewest --excludes "$$scratch/excludes" \
	    --generate-hashes --no-header --annotation-style line --no-cache --quiet \
	    --output-file "$$scratch/lock" $(LOCK_FLAGS) > "$$scratch/shown"; \
	{ echo "# Every package of the workbench and its tools, pinned with hashes. Made by: make lock"; \
	  echo "# No CUDA package is listed: a CUDA build of torch asks for its own by exact version, and"; \
	  echo "# installing the project itself (make does it next) brings them. The first hash of torch is"; \
	  echo "# that of its CPU build for Linux x86-64 and Python 3.11."; \
	  awk '{ print } /^torch==/ { print "    --hash=sha256:$(TORCH_CPU_SHA256) \\" }' \
	      "$$scratch/lock"; \
	} > "$$scratch/new"; \
	mv "$$scratch/new" requirements.lock; \
	echo "Wrote requirements.lock; bring the versions in environment.yml into line with it."

clean:
	@rm -rf .venv build dist *.egg-info htmlcov .coverage .coverage.* \
	    .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './runs/*' -prune -exec rm -rf {} +
	@find notebooks -name .ipynb_checkpoints -type d -prune -exec rm -rf {} +
