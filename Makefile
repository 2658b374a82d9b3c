# Every task of this repository. `make` alone lists them.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
unexport PYTHONDONTWRITEBYTECODE # the tests start a hundred servers: each would compile all of miLLM again
WORKERS ?= 2
# Each worker has processes of its own beside it: none of them shall wait for a core with a thread for every one.
TOGETHER := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
# Of the tests that `make test` leaves to others, each group has a task of its own below.
APART  := clients openwebui page fuzz crashes machine package image walks slow
EMPTY  :=
OTHERS := not $(subst $(EMPTY) $(EMPTY), and not ,$(APART))
OLDEST := $(addprefix tests/engine/test_,model_runner_architectures.py model_runner_batching.py cuda_graphs_capture.py)

help:            ## list the tasks
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/installed      ## install, then serve the demo model at http://127.0.0.1:8000
	$(BIN)/millm demo

setup: $(VENV)/dev-installed ## a virtual environment with everything for development

run: $(VENV)/installed       ## serve MODEL=... (a folder or a Hugging Face id), with ARGS=...
	$(BIN)/millm serve $(MODEL) $(ARGS)

check: $(VENV)/dev-installed ## format, lint and types, as CI runs them
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: $(VENV)/dev-installed  ## the suite, in ten minutes: every oracle, every refusal, one real server
	$(TOGETHER) -m '$(OTHERS)'

test-slow: $(VENV)/dev-installed ## what starts servers of its own, kills them, or really waits
	$(TOGETHER) -m slow

test-all: test test-slow page test-page test-docs test-crashes test-machine test-clients package-test test-openwebui fuzz oldest image-test ## everything that exists

fuzz: $(VENV)/dev-installed  ## ten thousand random requests
	$(BIN)/python -m pytest -m fuzz

test-docs: $(VENV)/dev-installed ## every command of README and docs, typed as it is written there
	$(BIN)/python -m pytest -m 'walks and not clients'

test-crashes: $(VENV)/dev-installed ## killed, out of memory, attached and detached: each again and again
	$(BIN)/python -m pytest -m crashes

test-machine: $(VENV)/dev-installed ## ten thousand changes of what is loaded, in any order
	$(BIN)/python -m pytest -m machine

test-clients: $(VENV)/dev-installed ## real clients (openai, LangChain, AI SDK...) in environments of their own; needs npm
	$(BIN)/python -m pytest -m clients

package-test: $(VENV)/dev-installed ## build the sdist and the wheel, and use the wheel in an environment of its own
	$(BIN)/python -m pytest -m package

test-openwebui: $(VENV)/dev-installed ## Open WebUI itself and its page; needs npm and Chromium
	$(BIN)/python -m pytest -m openwebui

image:           ## build the image millm with Docker (BASE_IMAGE=... TORCH_INDEX=cpu WITH_DEMO=1: see docs/operations/docker.md)
	docker build --tag millm --build-arg REVISION="$$(git rev-parse HEAD)" $(foreach name,BASE_IMAGE TORCH_INDEX WITH_DEMO,$(if $($(name)),--build-arg $(name)=$($(name)))) .

image-test: $(VENV)/dev-installed ## check Dockerfile and compose files, build the image and run it, without Docker; needs root, buildah and mmdebstrap
	TORCH_INDEX=$(TORCH_INDEX) $(BIN)/python -m pytest tests/container

oldest: $(VENV)/dev-installed .cache/oldest/installed ## the engine's tests on the oldest transformers that is supported
	PYTHONPATH=.cache/oldest $(TOGETHER) $(OLDEST)

fix: $(VENV)/dev-installed   ## format, and fix what lint can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: $(VENV)/dev-installed ## strict type checking alone
	$(BIN)/mypy

page: $(VENV)/dev-installed ui/node_modules ## check, test and build the page (ui/)
	npm --prefix ui run check
	npm --prefix ui test
	npm --prefix ui run build

test-page: $(VENV)/dev-installed ui/node_modules ## the page in a real browser, over real servers; needs Chromium, and `make page` first
	$(BIN)/python -m pytest -m page

screenshots: $(VENV)/dev-installed ui/node_modules ## every page in light and dark, wide and narrow, into build/screenshots; needs Chromium
	$(BIN)/python -m tools.make_screenshots

page-types: $(VENV)/dev-installed ui/node_modules ## write the page's types from the server's OpenAPI document
	$(BIN)/python -m tools.make_openapi | npm --prefix ui run --silent types

ui/node_modules: ui/package-lock.json
	npm --prefix ui ci --no-audit --no-fund
	@touch $@

docs: $(VENV)/dev-installed  ## write the pages that are generated from the code and the benchmarks
	$(BIN)/python -m tools.make_docs

site: $(VENV)/dev-installed  ## the documentation as a site, in build/site/site; a broken link ends it
	$(BIN)/python -m tools.make_site

bench: $(VENV)/dev-installed ## measure overhead, throughput and others (PEERS=...: see benchmarks/peers.py); half an hour
	$(BIN)/python -m benchmarks.overhead
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.peers $(PEERS)
	$(BIN)/python -m tools.make_docs

efficacy: $(VENV)/dev-installed ## measure every shipped profile by strength and write docs/efficacy.md (half an hour)
	$(BIN)/python -m tools.efficacy

# transformers 5.17 wants huggingface_hub 1.x, so the two come together, beside what is installed.
.cache/oldest/installed: Makefile | $(VENV)/dev-installed
	$(BIN)/pip install --quiet --no-deps --upgrade --target .cache/oldest transformers==5.17.0 huggingface_hub==1.33.0
	@touch $@

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .
	@touch $@

$(VENV)/dev-installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(VENV)/installed $@

.DEFAULT_GOAL := help
.PHONY: help demo setup run check test test-slow test-all package-test test-docs test-crashes test-machine test-clients test-openwebui test-page screenshots oldest fix types page page-types docs bench efficacy image image-test site
