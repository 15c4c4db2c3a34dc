# The verbs of the project. `make` alone prints them.
SHELL := /bin/bash
BIN := .venv/bin
BENCH = $${XDG_CACHE_HOME:-$$HOME/.cache}/mullama-bench
.DEFAULT_GOAL := help
.PHONY: help up test clients check fmt docs bench soak pins

help:
	@sed -nE 's/^([a-z]+):.*## (.*)/  make \1\t\2/p' Makefile | expand -t 16

up: ## set everything up, serve the built-in model, and ask it something
	@.ci/install
	@$(BIN)/mullama apply -f mullama.yaml --yes
	@echo && echo '$$ mullama run tiny "What is the capital of France?"'
	@$(BIN)/mullama run tiny "What is the capital of France?" -t 0 </dev/null
	@echo && echo "It goes on serving; $(BIN)/mullama status shows it, $(BIN)/mullama down stops it."

test: ## run the tests
	@.ci/install test
	@$(BIN)/python -m compileall -q mullama  # the tests start many processes, where nothing may write these files
	$(BIN)/python -m pytest -q

clients: ## let the clients of other projects judge the served APIs (langchain, litellm, npm packages and more)
	@.ci/install test
	@.ci/clients
	MULLAMA_PYTHON=$(CURDIR)/$(BIN)/python .venv-clients/bin/python -m pytest -q -W default --disable-warnings \
	  -o asyncio_mode=auto --timeout=240 tests/clients/foreign

check: ## lint, types, import contracts, and whether generated files are fresh
	@.ci/install test check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python .ci/generate --check

fmt: ## format the code and mend what the linter can
	@.ci/install test check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: ## write the files that are generated: schema and reference pages
	@.ci/install
	$(BIN)/python .ci/generate

bench: ## measure speed and size, and compare with llama-server, which is built the first time
	@.ci/install test
	$(BIN)/python -m pytest -q -s -m bench --timeout=1800
	$(BIN)/python -m benches.http_path
	$(BIN)/python -m benches.context_change
	$(BIN)/python -m benches.long_answer mullama/sources/builtin_models/tiny.gguf
	@benches/build_peer.sh "$(BENCH)"
	$(BIN)/python -m benches
	$(BIN)/python -m benches.engine_overhead "$(BENCH)/half-q4_k_m.gguf" --threads 1

soak: ## run under load for a long time
	@.ci/install test
	$(BIN)/python -m pytest -q -s -m soak --timeout=0

pins: ## write the versions that are installed now as those to install everywhere
	@.ci/install test check
	@{ echo "# Versions that were tested together, written by make pins."; \
	  $(BIN)/python -m pip freeze --exclude-editable | grep -v '@ file:'; } > .ci/constraints.txt
