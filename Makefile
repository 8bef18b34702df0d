# One command per word. Each word does all of its own set-up.
PYTHON ?=  # the interpreter of .venv; if not said, the fastest of this machine
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install prove test proofs check profile bench ceiling lock clean

help:  ## Show these words
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

install: $(VENV)/.installed  ## Make .venv with the locked dependencies and the command .venv/bin/flashproof

$(VENV)/.installed: requirements.lock pyproject.toml
	@python="$(strip $(PYTHON))"; [ -n "$$python" ] || python=$$(python3 deploy/fastest_python.py) || { echo "Flashproof needs Python 3.11 or newer, and found no python3. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 64; }; \
	"$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Flashproof needs Python 3.11 or newer; this is $$("$$python" --version). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 64; }; \
	echo "installing the locked dependencies into $(VENV) with $$python (about a minute, once) ..."; \
	"$$python" -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@sync || true  # half a gigabyte not on disk yet would slow every fsync of a sale that follows at once
	@touch $@

prove: install  ## A whole flash sale with real stores, checked and judged: out/prove/latest (ARGS='--rate 500 --seconds 10')
	@$(BIN)/flashproof prove $(ARGS)

# Tests that may share the machine: two at a time. The others judge how late a load generator was, or stop processes in
# the middle of a sale, and have it to themselves. With ARGS one after the other.
SIDE_BY_SIDE := tests/stores tests/harness/checkers tests/harness/search tests/web tests/unit

test: install  ## All tests, on real stores (ten minutes on a slow machine of two cores)
ifeq ($(strip $(ARGS)),)
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(SIDE_BY_SIDE); beside=$$?; \
	$(BIN)/python -m pytest $(SIDE_BY_SIDE:%=--ignore=%); alone=$$?; \
	exit $$((beside > alone ? beside : alone))
else
	@$(BIN)/python -m pytest $(ARGS)
endif

proofs: install  ## The commands of measurement, each played small from start to end (some minutes)
	@$(BIN)/python -m pytest -m proof $(ARGS)

check: install  ## Format, lint, types, walls
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest tests/test_architecture.py $(ARGS)

profile: install  ## A flash sale with flame graphs of the server and the projector: out/prove/latest/profile-*.svg
	@$(BIN)/flashproof prove --profile $(ARGS)

ceiling: install  ## The hot path beside nginx, a bare protocol and aiohttp, as ratios: out/ceiling/latest
	@$(BIN)/flashproof ceiling $(ARGS)

bench: install  ## Benchmarks of the scripts on real stores
	@$(BIN)/python -m pytest benchmarks --benchmark-enable --benchmark-only $(ARGS)

lock: install  ## Renew requirements.lock from pyproject.toml (needs uv)
	@uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
		--no-emit-index-url --no-header --quiet --output-file requirements.lock

clean:  ## Remove what the words above made, but no data under .local
	@rm -rf $(VENV) out .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
