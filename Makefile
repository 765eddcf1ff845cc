# The words of this study: `make help` lists them. Each sets up what it needs.
.DEFAULT_GOAL := help
.PHONY: help setup study batch plan report orphans docs test mutants lab bench table lint keep ship readme nbdime

BATCH ?= batches/quick.yaml
ARGS ?=
SLURM ?=
PROBE ?=
unexport PYTHONDONTWRITEBYTECODE # torch takes half a minute to compile at each import without it
unexport PYTHONPATH PYTHONHOME PIP_TARGET PIP_PREFIX # other packages than .venv's, or another place for them
export PIP_USER := 0

# A Python for which the pinned packages have wheels, whatever plain python3 is here.
FITS = import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do $$p -I -c '$(FITS)' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin

help: ## list these words
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile | while IFS='	' read -r word what; do printf '  make %-8s %s\n' "$$word" "$$what"; done

setup: $(BIN)/.ready ## make the environment in .venv, pinned by requirements.lock

$(BIN)/.ready: requirements.lock pyproject.toml
	@$(BIN)/python -I -c 'import pip; $(FITS)' 2>/dev/null || { python="$(PYTHON)"; \
	    "$$python" -I -c '$(FITS)' 2>/dev/null || { echo "error: $${python:-python3} is no Python 3.11 to 3.14, and the pinned packages (torch first) have wheels for no other: name one (make setup PYTHON=/path/to/python3.13), get one (uv python install 3.13), or use conda (environment.yml)" >&2; exit 1; }; \
	    "$$python" -m venv --clear .venv || { echo "error: $$python cannot make an environment in .venv: on Debian and Ubuntu apt-get install python3-venv, elsewhere name another (make setup PYTHON=...)" >&2; exit 1; }; }
	@$(BIN)/python -m pip install --quiet --no-cache-dir --disable-pip-version-check uv \
	    || { echo "error: pip could not install uv: is there a network, or an index in PIP_INDEX_URL?" >&2; exit 1; }
	@test -n "$$UV_CACHE_DIR$$XDG_CACHE_HOME" || test -w "$$HOME" || export UV_CACHE_DIR=.venv/.cache; \
	{ $(BIN)/uv pip sync --quiet --python $(BIN)/python requirements.lock \
	    && $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .; } \
	    || { echo "error: not all packages of requirements.lock were installed: mend what stands above, then make setup again" >&2; exit 1; }
	@touch $@

study: setup ## run the quick batch on all cores: embedded data, minutes; finished runs are skipped
	@$(BIN)/python -m lib run batches/quick.yaml $(ARGS)

batch: setup ## run another batch: make batch BATCH=batches/paper.yaml; on a cluster with SLURM=profiles/slurm.yaml
	@$(BIN)/python -m lib run $(BATCH) $(if $(SLURM),--slurm $(SLURM)) $(ARGS)

plan: setup ## show which rows of BATCH would run, and why
	@$(BIN)/python -m lib run $(BATCH) --dry-run $(ARGS)

report: setup ## write the study as pages, results/site: what git keeps, and what was run here; or of one BATCH
	@$(BIN)/python -m lib report $(if $(filter file,$(origin BATCH)),,$(BATCH))

orphans: setup ## list trainings that no run uses, and what killed ones left; ARGS=--remove deletes them
	@$(BIN)/python -m lib orphans $(ARGS)

docs: setup ## write lib's documentation from its docstrings as pages: results/site/lib
	@$(BIN)/pdoc --no-show-source --output-directory results/site/lib lib

test: setup ## run all tests: units, every notebook under nbval, batches from end to end
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist worksteal $(ARGS)

mutants: setup ## plant small faults in lib one at a time, and tell which the tests notice
	@nice $(BIN)/python tests/whole/mutants.py $(ARGS)

lab: setup ## open JupyterLab on the notebooks
	@$(BIN)/jupyter lab --ip 127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) $(ARGS) notebooks

bench: setup ## measure training against a plain loop, the probe against liblinear, time and memory by notebook
	@$(BIN)/python tests/bench/bench.py $(ARGS)
	@$(if $(ARGS),,for what in "--dtype float32" "--dtype bfloat16" "--kmeans 4800" ""; do \
	    $(BIN)/python tests/bench/bench_probe.py $$what || exit 1; done)
	@$(if $(ARGS),,$(BIN)/python tests/bench/bench_images.py)

table: setup ## rebuild results/table.csv from the runs
	@$(BIN)/python -m lib table

keep: setup ## keep the finished rows of BATCH in git, records and executed notebooks, or one RUN=..., and write README anew
	@$(BIN)/python -m lib keep $(or $(RUN),$(BATCH))
	@$(BIN)/python -m lib readme

ship: setup ## make a run's net one of those that come with the study: make ship RUN=01_train_gan-0123456789 NAME=imagenet32 PROBE=cifar10, ALONE=1 for its D alone
	@$(BIN)/python -m lib ship "$(RUN)" "$(NAME)" $(if $(PROBE),--probe $(PROBE)) $(if $(ALONE),--alone)

readme: setup ## write README.md's tables and figure and results/NUMBERS.md from the records
	@$(BIN)/python -m lib readme

nbdime: setup ## let git compare and merge this clone's notebooks cell by cell
	@git config diff.jupyternotebook.command "$(abspath $(BIN))/git-nbdiffdriver diff"
	@git config merge.jupyternotebook.driver "$(abspath $(BIN))/git-nbmergedriver merge %O %A %B %L %P"

lint: setup ## check style, notebooks too, and that rooms use each other one way
	@$(BIN)/lint-imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
