# The tasks of the project. `make` alone lists them.
SHELL := /bin/bash
BIN := .venv/bin
BENCH = $${XDG_CACHE_HOME:-$$HOME/.cache}/mullama-bench
.DEFAULT_GOAL := help
.PHONY: help up test coverage clients agents check fmt docs ui site dist bench ray real soak laws hosts pins vulkan-sim

help:
	@sed -nE 's/^([a-z-]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

up: ## install, serve the built-in model, and show a first answer
	@.ci/install
	@$(BIN)/python -m mullama.web.build || true  # the page at /ui/; all else works without it
	@$(BIN)/mullama apply -f mullama.yaml --yes
	@echo && echo '$$ mullama run tiny "What is the capital of France?"'
	@$(BIN)/mullama run tiny "What is the capital of France?" -t 0 </dev/null
	@echo && echo "The server keeps running: $(BIN)/mullama status shows it, $(BIN)/mullama down stops it."

test: ## run the tests in parallel, and repeat the failed ones
	@.ci/install test
	@$(BIN)/python -m compileall -q mullama  # the tests start many processes, and none of them may write these files
	$(BIN)/python .ci/test

coverage: ## run the tests with branch coverage, in this process and in those that it starts
	@.ci/install test
	@rm -f .coverage .coverage.*
	COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml $(BIN)/python -m coverage run -m pytest -q -n logical --dist worksteal || true
	$(BIN)/python -m coverage combine -q
	$(BIN)/python -m coverage report --skip-covered | tail -n 40

clients: ## test the served APIs with clients of other projects (langchain, litellm, npm packages and more)
	@.ci/install test
	@.ci/clients
	MULLAMA_PYTHON=$(CURDIR)/$(BIN)/python .venv-clients/bin/python -m pytest -q -W default --disable-warnings \
	  -o asyncio_mode=auto --timeout=240 tests/clients/foreign

agents: ## drive coding agents through a task over a server (Claude Code, Codex, OpenCode, Aider, Cline, Continue, llm)
	@.ci/install test
	@.ci/agents
	PATH=$(CURDIR)/.venv-agents/bin:$(CURDIR)/.venv-agents/node_modules/.bin:$$PATH \
	  $(BIN)/python -m pytest -q -m agents --timeout=600 tests/clients/agents

check: ## check style, types, import contracts, language and generated files
	@.ci/install test check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/language
	$(BIN)/python .ci/generate --check
	$(BIN)/python -m mullama.web.build --check || [[ $$? == 2 ]]  # 2: neither Node nor the network

fmt: ## format the code and apply the fixes of the linter
	@.ci/install test check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: ## write the generated files: schema and reference pages
	@.ci/install
	$(BIN)/python .ci/generate

ui: ## build the web page, and check the types of its sources
	@.ci/install
	@$(BIN)/python -m mullama.web.build --check

site: ## build the documentation site into site/
	@.ci/install site
	$(BIN)/zensical build --clean

dist: ## build wheel and source archive, and try both in empty environments
	@.ci/install check
	@.ci/dist

bench: ## measure speed and size, and compare with llama-server, which is built the first time
	@.ci/install test
	$(BIN)/python -m pytest -q -s -m bench --timeout=1800
	$(BIN)/python -m benches.http_path
	$(BIN)/python -m benches.page_frames
	$(BIN)/python -m benches.context_change
	$(BIN)/python -m benches.long_answer mullama/sources/builtin_models/tiny.gguf
	$(BIN)/python -m benches.speculation mullama/sources/builtin_models/tiny.gguf --lines 40 --tokens 400
	$(BIN)/python -m benches.swap mullama/sources/builtin_models/tiny.gguf --tokens 900
	@benches/build_peer.sh "$(BENCH)"
	$(BIN)/python -m benches
	$(BIN)/python -m benches.engine_overhead "$(BENCH)/half-q4_k_m.gguf" --threads 1

real: ## fetch real models into the user's cache, and run the end-to-end and equality tests on them
	@.ci/install test
	@$(BIN)/python -m benches.real_models
	$(BIN)/python -m pytest -q -m real tests/real

ray: ## install Ray into an environment of its own, and test on a cluster on this machine (2 GB of memory)
	@.ci/install test
	@.ci/ray
	.venv-ray/bin/python -m pytest -q --timeout=900 tests/targets/ray

vulkan-sim: ## build llama.cpp with Vulkan, and run the tests of devices on Mesa's software device
	@.ci/install test
	@.ci/vulkan-sim

laws: ## try the laws of the pure code on new random values
	@.ci/install test
	$(BIN)/python -m pytest -q -n logical -m hypothesis --hypothesis-profile=random --timeout=0 tests

soak: ## run under load for a long time
	@.ci/install test
	$(BIN)/python -m pytest -q -s -m soak --timeout=0

hosts: ## swap and break servers of three hosts in network namespaces while 10,000 requests arrive (needs root)
	@.ci/install test
	$(BIN)/python -m pytest -q -s -m "soak or not soak" --timeout=0 tests/hosts

pins: ## write the installed versions as the ones to install everywhere
	@.ci/install test check site
	@{ echo "# Versions that were tested together, written by make pins."; \
	  $(BIN)/python -m pip freeze --exclude-editable | grep -v '@ file:'; } > .ci/constraints.txt
