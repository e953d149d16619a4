# make report   the main job: every training of a study, its tables and figures, one HTML file
# make ablations  the ablations too: what each departure of the released code, and each choice, matters
# make domains  the distribution shifts at every severity too
# Each target sets up .venv by itself the first time. make help lists them.

STUDY ?= quick
JOBS ?= $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 1)
PROFILE ?= default
GPUS ?= $(shell nvidia-smi --list-gpus 2>/dev/null | wc -l)
PYTHON ?= python3
BIN = .venv/bin
RESULTS = $(or $(TRUST_RESULTS),results)
RUN = $(RESULTS)/runs/$(notdir $(basename $(STUDY)))
EXECUTED = $(RESULTS)/runs/notebooks
NOTEBOOKS = $(basename $(notdir $(sort $(wildcard notebooks/*.ipynb))))
SHELL := bash
# A cluster needs a plugin, and what a profile cannot know: where the logs of a run lie, and who to ask about its jobs.
ifneq ($(shell grep -s '^executor: slurm' profiles/$(PROFILE)/config.yaml),)
PLUGIN = .venv/slurm
AT_ONCE = --jobs $(JOBS) --slurm-logdir $(RUN)/slurm \
	--slurm-status-command $$(sacct --allocations --noheader > /dev/null 2>&1 && echo sacct || echo squeue)
else
AT_ONCE = --cores $(JOBS) $(if $(filter-out 0,$(GPUS)),--resources gpu=$(GPUS))
endif
# What Snakemake says of itself; the jobs speak for themselves. Ctrl-C must not stop the filter: a Snakemake that cannot
# print does not take its jobs back from a cluster.
CHATTER = '^(Using |Assuming |Building |Select jobs|Execute [0-9]|Complete log|Elapsed|Exiting because|Shutting down|RuleException|CalledProcessError in|Command .set |SLURM run ID|Provided remote|No SLURM account|No account was|Unable to guess|$$)'
PYTEST = OMP_NUM_THREADS=1 python -m pytest --numprocesses $(JOBS) --maxprocesses 8 --dist loadfile --no-loadscope-reorder
INSTALL = uv pip install --quiet --python $(BIN)/python --constraint requirements.txt --editable

export PATH := $(CURDIR)/$(BIN):$(PATH)
export JUPYTER_PREFER_ENV_PATH = 1
# glibc gives each large tensor's pages back to the system and faults them in anew: half of EfficientNet-Lite0's time on
# the CPU. Here a process keeps what it once had; other allocators ignore these.
export MALLOC_MMAP_MAX_ = 0
export MALLOC_TRIM_THRESHOLD_ = 100000000000
export MALLOC_TOP_PAD_ = 268435456

# At the size that is published; by themselves the notebooks take the smallest.
BENCHMARK = -y '{sizes: [10000, 100000, 1000000, 10000000], resamples: 2000, files: [[10000, 1], [10000, 10], [1000000, 10]]}'
SPEED = -y '{rounds: 10, steps: 20, photo_steps: 8, photo_batch: 16, photos: 300}'
SPEED_GPU = -y '{rounds: 10, steps: 3, compiled: true, batches: [128, 256, 512], models: [vit_base_patch16_384, resnet50]}'
# A notebook from papermill's output, without the times and paths that papermill notes in it.
UNTIMED = "import sys, nbformat; n = nbformat.read(sys.stdin, 4); [x.metadata.pop('papermill', None) for x in (n, *n.cells)]; \
	nbformat.write(n, sys.argv[1])"
# $(call page,NOTEBOOK,FOLDER,PAGE,PARAMETERS): run a notebook that writes to results/FOLDER, and render it there.
page = @mkdir -p $(RESULTS)/runs/$(2) && papermill notebooks/$(1).ipynb $(RESULTS)/runs/$(2)/$(1).ipynb -k python3 \
	--no-progress-bar --log-output -p out "$(abspath $(RESULTS))/$(2)" $(4); status=$$?; \
	python -m trustlib render $(RESULTS)/$(2)/$(3).html $(RESULTS)/runs/$(2)/$(1).ipynb; exit $$status

.DEFAULT_GOAL := help
.PHONY: help report ablations domains publish verify readme test test-all notebooks benchmark speed speed-gpu lab copies lock clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1|/' | column -t -s '|'
	@echo "  STUDY=$(STUDY) names a file in studies/, JOBS=$(JOBS) says how many notebooks run at once,"
	@echo "  FROM=published draws a study's report again from what it has published, with nothing to train,"
	@echo "  PROFILE=$(PROFILE) names a folder in profiles/, and so where: default is this machine, slurm a cluster"

report: .venv/ready $(PLUGIN) $(if $(FROM),,$(RUN)/checked)  ## run a study and write results/runs/STUDY/report.html (STUDY=quick, some ten minutes)
	@[ -e profiles/$(PROFILE)/config.yaml ] || { echo "error: there is no profiles/$(PROFILE)/config.yaml" >&2; exit 1; }
	@[ -z "$(PLUGIN)" ] || command -v sbatch > /dev/null || \
		{ echo "error: PROFILE=$(PROFILE) needs SLURM: there is no sbatch here" >&2; exit 1; }
	@snakemake --workflow-profile profiles/$(PROFILE) $(AT_ONCE) --config study=$(STUDY) ablations="$(ASKED)" \
		sweep=$(SWEEP) gpus=$(GPUS) source=$(FROM) 2> >(trap '' INT; grep --line-buffered -vE $(CHATTER) >&2)

$(RUN)/checked: .venv/ready $(wildcard $(STUDY) studies/*.yaml)  # data, weights and files, before anything is trained
	@python -m trustlib check $(STUDY)
	@mkdir -p $(RUN) && touch $@

ablations: .venv/ready  ## the same with its ablations, all or some (ONLY="rate head")
	@$(MAKE) --no-print-directory report ASKED="$(or $(ONLY),all)"

domains: .venv/ready  ## the same with the study's corruptions at every severity, for the curves
	@$(MAKE) --no-print-directory report SWEEP=1

publish verify: .venv/ready
	@python -m trustlib $(if $(FROM),$(@:publish=redraw),$@) $(STUDY)
publish:  ## copy a finished study's report, tables, figures and scores to results/STUDY/
verify:  ## recompute a published study's tables from its scores, and compare

readme: .venv/ready  ## draw the README's figure and tables from the published results
	@python -m trustlib readme

test: .venv/ready  ## lint, types and the tests of three minutes
	ruff check . && ruff format --check .
	mypy
	$(PYTEST) -m "not slow" $(COVERAGE)

test-all:  ## these, and kernels, the graph, a browser, kills; the coverage of all
	@$(MAKE) --no-print-directory test COVERAGE="--cov --cov-report= --cov-fail-under=0"
	$(PYTEST) -m slow --cov --cov-append

notebooks: .venv/ready  ## run every notebook from its defaults, on digits, into results/runs/notebooks
	@$(INSTALL) '.[benchmark]'
	@mkdir -p $(EXECUTED)
	@printf '%s\n' $(NOTEBOOKS) | TRUST_JOBS="$(filter-out $(lastword $(NOTEBOOKS)),$(NOTEBOOKS))" \
		OMP_NUM_THREADS=1 xargs -P $(JOBS) -I{} bash -c 'profiles/job.sh {} $(EXECUTED)/{}.log \
		papermill notebooks/{}.ipynb $(EXECUTED)/{}.ipynb -k python3 --no-progress-bar \
		$$(grep -q "interactive: bool" notebooks/{}.ipynb && echo -p interactive False)'  # controls need a person

benchmark: .venv/ready  ## time the metrics against other libraries, into results/benchmark (takes some minutes)
	@$(INSTALL) '.[benchmark]'
	$(call page,benchmark,benchmark,report,$(BENCHMARK))

benchmark speed: export OMP_NUM_THREADS = 1

speed: .venv/ready  ## time training steps and data loading on a core, into results/speed
	$(call page,speed,speed,report,$(SPEED))

speed-gpu: .venv/ready  ## time training steps on a GPU (some seven minutes)
	$(call page,speed_gpu,speed,gpu,$(SPEED_GPU))

lab: .venv/ready  ## JupyterLab on the notebooks, at 00_start_here
	jupyter lab $(if $(filter 0,$(shell id -u)),--allow-root) notebooks/00_start_here.ipynb

copies: .venv/ready  # executed copies of the notebooks to start with, for readers on the web
	@set -o pipefail; for name in 00_start_here losses explore; do \
		papermill notebooks/$$name.ipynb - -k python3 --no-progress-bar \
			$$([ $$name = 00_start_here ] || echo -p interactive False) | python -c $(UNTIMED) docs/notebooks/$$name.ipynb || exit 1; \
	done

lock: .venv/ready  ## compile requirements.txt anew from pyproject.toml
	uv pip compile --quiet --universal --python-version 3.11 --extra study --extra test --upgrade --no-header --no-annotate \
		--no-emit-index-url --no-emit-find-links pyproject.toml --output-file requirements.txt

clean:  ## remove the environment and everything a run made; published results and data stay
	rm -rf .venv .snakemake results/runs

.venv/ready: requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, \
	found " + sys.version.split()[0] + ": make PYTHON=python3.12 ...")'
	@echo "Setting up .venv (once; PyTorch is a download of some GB)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --requirements requirements.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

.venv/slurm: .venv/ready
	@$(INSTALL) '.[slurm]'
	@touch $@
