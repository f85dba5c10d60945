# Set-up and everyday commands. Nothing but make, git and Python 3.11 to 3.13 is needed.
PYTHON ?= python3
CORES ?= all
STUDY ?= demo
VENV := .venv
# Studies whose records are kept.
KEPT := $(foreach runs,$(wildcard results/reference/*/runs),$(notdir $(patsubst %/runs,%,$(runs))))
# Says in a few lines how far Snakemake is; what each job does stands in its log.
BRIEFLY := python -m lsc.study.brief
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
# Where the home folder cannot be written, what Snakemake keeps there is kept here.
ifneq ($(shell test -w "$$HOME" && echo yes),yes)
export XDG_CACHE_HOME ?= $(CURDIR)/work/cache/user
endif

.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## make .venv with the exact pins of envs/requirements.lock and the package

# The programs of an environment name it by its whole path: in a folder that was moved it is made anew.
MOVED := $(shell test -e $(VENV) && { grep -qsF "$(CURDIR)/$(VENV)" $(VENV)/bin/activate || echo yes; })

# Moved, or without pip, it is looked at although its files are newer.
ifneq ($(MOVED)$(if $(wildcard $(VENV)/lib/python3*/site-packages/pip),,no),)
.PHONY: $(VENV)/.pins
endif

$(VENV)/.pins: envs/requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "$(PYTHON) is $$($(PYTHON) --version); lsc needs Python 3.11 to 3.13: make PYTHON=python3.12" >&2; exit 2; }
	$(if $(MOVED),rm -rf $(VENV)  # it was made elsewhere)
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip --version > /dev/null 2>&1 || $(VENV)/bin/python -m ensurepip > /dev/null 2>&1 || \
	  { echo "$(VENV) has no pip: rm -rf $(VENV), and the same command again" >&2; exit 2; }
	@# The lock names every package, so that several pips, of one core each, can share them out. Compiled by all cores, too; tests are
	@# not imported, and a few files of other Pythons do not compile.
	grep == envs/requirements.lock | tr '\n' '\0' | \
	  xargs -0 -n 45 -P 3 $(VENV)/bin/python -m pip install --quiet --no-compile --no-deps
	@$(VENV)/bin/python -m compileall -q -j 0 -x '/tests?/' $(VENV)/lib > /dev/null 2>&1 || true
	touch $@

$(VENV)/.installed: $(VENV)/.pins pyproject.toml
	$(VENV)/bin/python -m pip install --quiet --no-deps --editable .
	touch $@

demo: setup ## run the demo study and render its chapters: results/demo/index.html
	@$(BRIEFLY) snakemake --cores $(CORES)

figure: setup ## draw one figure again from the records: make figure NAME=low_dim_accuracy
	@python -m lsc.study.pages figure "$(NAME)" --study config/$(STUDY).yaml

pages: setup ## render the chapters of every study with reference records into docs/chapters and the README
	@for study in $(KEPT); do \
	  $(BRIEFLY) snakemake --cores $(CORES) --configfile config/$$study.yaml --config records=reference && \
	  python -m lsc.study.pages keep --results results/$$study-reference --folder docs/chapters/$$study || exit; done

check-pages: setup ## say where docs/chapters is not what the reference records render to, and which links are broken
	@for study in $(KEPT); do \
	  $(BRIEFLY) snakemake --cores $(CORES) --configfile config/$$study.yaml --config records=reference && \
	  python -m lsc.study.pages check results/$$study-reference/index.html results/$$study-reference/notebooks && \
	  python -m lsc.study.pages compare --results results/$$study-reference --folder docs/chapters/$$study || exit; done

FONTS := $(shell sed -n 's/^PACKAGES = "\(.*\)"/\1/p' lsc/data/fonts.py)

fonts: ## install the fonts of config/glyphs.yaml with apt, as root; or print the command
	@command -v apt-get > /dev/null || { echo "apt-get is missing: install by other means $(FONTS)" >&2; exit 2; }
	@if [ "$$(id -u)" = 0 ]; then \
	  apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends fontconfig $(FONTS); \
	else echo "as root: apt-get install --no-install-recommends fontconfig $(FONTS)" >&2; exit 2; fi

test: setup ## run the tests
	pytest -n $$(nproc) --dist worksteal --ignore tests/slurm

test-slurm: setup ## run a small study on a SLURM that is started on this machine for it
	@PATH=$$PATH:/usr/sbin:/sbin; for program in munged slurmctld slurmd sbatch srun; do command -v $$program > /dev/null || \
	  { echo "$$program is missing: as root, apt-get install slurm-wlm munge (Debian, Ubuntu)" >&2; exit 2; }; done
	pytest tests/slurm

test-wheel: setup ## build the wheel, install it with the core's packages alone, train and predict with it
	.ci/wheel

test-oldest: setup ## run the tests of what needs torch with the oldest versions that are allowed
	.ci/oldest

lint: setup ## check style, types, rooms, workflow and notebooks
	ruff check
	ruff format --check
	mypy
	lint-imports
	snakefmt --check Snakefile workflow
	snakemake --lint
	nbstripout --verify notebooks/*.ipynb

format: setup ## bring code, workflow and notebooks into shape
	ruff check --fix
	ruff format
	snakefmt Snakefile workflow
	nbstripout notebooks/*.ipynb

schema: setup ## renew config/schema.json, by which editors complete and check config/*.yaml
	python -m lsc.study.schema

docs: setup ## build the site of documents, rendered chapters and the library's pages: site/index.html
	NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict --quiet
	rm -f site/404.html  # for servers alone: its links begin at their root
	python -m lsc.study.pages check site/*.html site/chapters

lock: setup ## renew envs/requirements.lock from pyproject.toml
	uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --no-header --no-annotate \
	  --no-emit-index-url --no-emit-find-links --constraints envs/torch.txt --output-file envs/requirements.lock

reference: ## keep the records of STUDY (demo) under results/reference/, without weights
	@python -m lsc.study.reference "$(STUDY)"

clean: ## remove the demo's results and checkpoints
	rm -rf results/demo work/demo

.PHONY: help setup demo figure fonts pages check-pages test test-slurm test-wheel test-oldest lint format schema docs lock reference clean
