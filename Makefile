PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# no other file is imported there, as others need what neither environment has
PEERS = $(shell grep -l 'pytest\.mark\.peers' tests/plugins/test_*.py)
GPU_PYTHON ?= $(if $(wildcard $(BIN)/python),$(BIN)/python,python3)

.DEFAULT_GOAL := help
.PHONY: help install demo test test-rest test-slow test-slow-postgres soak test-browser test-postgres test-field test-door test-arena test-peers docs tables fair kernels check bench bench-dashboard bench-store bench-scaling bench-peers screenshots gpu clean

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,kernels]'
	touch $@

help:  ## these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-16s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

install: $(STAMP)  ## everything for work on archsearch, into .venv

demo: $(STAMP)  ## search hybrid attention on this machine and show the front
	$(BIN)/archsearch run examples/quickstart.toml

test: $(STAMP)  ## the default tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal --durations 25 --durations-min 5

test-rest: $(STAMP)  ## what the targets test-browser to test-arena run, as one run; three workers on two cores, as many wait
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[postgres]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "(browser or postgres or door or arena) and not slow and not gpu and not peers and not soak or field" -n 3 --dist worksteal --durations 25 --durations-min 5

test-slow: $(STAMP)  ## long searches and full grids
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and not postgres" --timeout 1800 -n 2 --dist worksteal

test-slow-postgres: $(STAMP)  ## the slow ones that ask for a PostgreSQL server (apt-get install postgresql)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[postgres]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "slow and postgres" --timeout 1800 -n 2 --dist worksteal tests/storage tests/search

soak: $(STAMP)  ## kill drivers, workers, raylets and the database at random moments; ONLY=sqlite, postgresql or faults
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[postgres]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m soak -s tests/soak $(if $(ONLY),-k $(ONLY))

test-browser: $(STAMP)  ## the dashboard in chromium (apt-get install chromium)
	$(BIN)/python -m pytest -m browser -n 2 --dist worksteal tests/dashboard

test-postgres: $(STAMP)  ## the store, the command line and the dashboard on PostgreSQL (apt-get install postgresql)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[postgres]'
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "postgres and not slow" -n 2 --dist worksteal tests/storage tests/cli tests/dashboard tests/search tests/jobs

test-field: $(STAMP)  ## mixers of the field as packages of foreign authors, installed by pip and trained
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m field tests/field tests/search/test_search_runner.py -n 2 --dist worksteal

test-door: $(STAMP)  ## new plugins of every kind, installed, checked and searched over
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m door tests/door tests/cli tests/testing -n 2 --dist worksteal

test-arena: $(STAMP)  ## every preset of the built-in plugins through every law
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "arena and not slow" tests/plugins -n 2 --dist worksteal

test-peers: .venv-peers-transformers/.installed .venv-peers-fla/.installed  ## layers and ops beside those of transformers and fla, by copied weights
	OMP_NUM_THREADS=1 .venv-peers-transformers/bin/python -m pytest -m peers $(PEERS)
	OMP_NUM_THREADS=1 .venv-peers-fla/bin/python -m pytest -m peers $(PEERS)

docs: $(STAMP)  ## the documentation as a site in site/, warnings are errors
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

tables: $(STAMP)  ## write the tables of README.md and docs/results.md, from the plugins and the runs
	PYTHONPATH=docs $(BIN)/python docs/written.py

fair: $(STAMP)  ## train what the fair table lacks, for so many MINUTES in as many WORKERS, and write it into docs/results.md
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/fair.py docs/results/fair.jsonl --minutes $(or $(MINUTES),60) --workers $(or $(WORKERS),1)
	PYTHONPATH=docs $(BIN)/python docs/written.py

kernels: $(STAMP)  ## compile every kernel ahead of time, and compare with the accepted report
	$(BIN)/archsearch kernels compile --accepted tests/kernels/accepted.json

check: $(STAMP)  ## lint and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)  ## the figures of the README, each a rate or a ratio within one run
	$(BIN)/python benchmarks/figures.py

bench-dashboard: $(STAMP)  ## the dashboard over 50,000 trials, beside optuna-dashboard
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python benchmarks/dashboard.py

bench-store: $(STAMP)  ## rates and latency of the store's writers on both databases, beside Optuna's
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[postgres]'
	$(BIN)/python benchmarks/store.py

bench-scaling: $(STAMP)  ## trials an hour against workers that sleep, on both databases, into docs/scaling.md
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[postgres]'
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/scaling.py workers --both --json docs/results/scaling.json
	PYTHONPATH=docs $(BIN)/python docs/written.py

.venv-peers-%/.installed: pyproject.toml constraints.txt
	test -x $(@D)/bin/python || $(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --upgrade pip
	$(@D)/bin/python -m pip install --quiet -c constraints.txt torch
	$(@D)/bin/python -m pip install --quiet -c constraints.txt -e '.[peers-$*]'
	touch $@

bench-peers: .venv-peers-transformers/.installed .venv-peers-fla/.installed  ## ops and decoding on one thread of the CPU, beside public forms, into docs/results/peers.json
	.venv-peers-transformers/bin/python benchmarks/peers.py --json docs/results/peers.json

screenshots: $(STAMP)  ## pictures of every page into docs/img, from the quickstart's result
	$(BIN)/python benchmarks/screenshots.py

gpu:  ## on a card, in nine minutes, without a network: prove the kernels, measure ops and models, report
	$(GPU_PYTHON) benchmarks/gpu.py

clean:  ## remove what was installed and built
	rm -rf $(VENV) build dist site *.egg-info
