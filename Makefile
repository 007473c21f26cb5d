# The verbs of the book; `make help` lists them.
# `PYTHON=python3.12 make book` chooses the Python that `.venv` is made from (3.11 or newer).

SHELL := /bin/sh
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.installed
PORT ?= 8000
CHAPTERS ?=
RUNS ?=

.PHONY: help book test pages-test break serve weave bench colab reproduce lint format lock clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z.-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

book: $(STAMP) ## execute the chapters that changed, build the pages: _build/html/index.html
	@$(PY) -m tools.build

test: $(STAMP) ## all tests and every cell of every chapter; feeds the pages too (CHAPTERS=...)
	@$(PY) -m tools.execute $(if $(CHAPTERS),$(CHAPTERS),--tests)

pages-test: $(STAMP) ## look at the built pages in a real browser (needs Chromium)
	@$(PY) -m pytest tests/pages

break: $(STAMP) ## put known bugs into a copy of the package and see which test notices each
	@$(PY) -m tools.breakages

serve: $(STAMP) ## show the built book at http://localhost:8000 (PORT=...)
	@$(PY) -m tools.serve $(PORT)

weave: $(STAMP) ## write the source of the package's functions into the cells marked with them
	@$(PY) -m tools.weave

bench: $(STAMP) ## print the speed of vae.fit against a plain loop and against its matrix products
	@$(PY) -m tools.bench

colab: $(STAMP) ## run the notebooks as Colab would, in an environment with its versions (CHAPTERS=...)
	@$(PY) -m tools.colab $(CHAPTERS)

reproduce: $(STAMP) ## list the long runs and their cost; RUNS=all or RUNS=NAME repeats them
	@$(PY) -m experiments $(RUNS)

lint: $(STAMP) ## check style and format of the code and of the chapters' cells
	@$(PY) -m ruff check .
	@$(PY) -m ruff format --check .
	@$(PY) -m tools.lint
	@$(PY) -m tools.weave --check

format: $(STAMP) ## put the code and the chapters' cells into the format that `make lint` expects
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .
	@$(PY) -m tools.lint --fix

lock: ## compile requirements.in into requirements.txt (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --custom-compile-command "make lock" --output-file requirements.txt requirements.in

clean: ## remove everything that was made, the environments too
	rm -rf _build .venv .colab .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv: $(STAMP)

# A failed install leaves no stamp, so the next call tries again.
$(STAMP): requirements.txt pyproject.toml
	@rm -f $@
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "The book needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>/dev/null || echo not there`."; \
	  echo "Name another one: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@if uv --version >/dev/null 2>&1; then \
	  echo "Installing the locked packages into $(VENV) with uv"; \
	  [ -x $(PY) ] || uv venv --quiet --python "`command -v $(PYTHON)`" $(VENV); \
	  uv pip install --quiet --python $(PY) --require-hashes -r requirements.txt && \
	  uv pip install --quiet --python $(PY) --no-deps -e .; \
	else \
	  echo "Installing the locked packages into $(VENV) with pip (about a minute)"; \
	  $(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) has no venv: on Debian or Ubuntu, sudo apt-get install python3-venv"; exit 1; }; \
	  { [ -x $(PY) ] || $(PYTHON) -m venv $(VENV); } && \
	  $(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt && \
	  $(PY) -m pip install --quiet --disable-pip-version-check --no-deps -e .; \
	fi
	@touch $@
