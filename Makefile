# Everything a fresh machine needs: `make demo` and `make test`.
.DEFAULT_GOAL := help
PYTHON ?= python3.11
BIN := .venv/bin
# Tests wait more than they compute, so twice as many at once as a small machine has cores.
WORKERS ?= 4
PYTEST := $(BIN)/pytest -n $(WORKERS)

.PHONY: help venv demo check test bench quality clean

help:            ## this list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

venv: .venv/.installed   ## the environment, in .venv

# pip would compile all of torch, which took 31 s of 43; importing what is used compiles that alone
PIP := $(BIN)/pip install --quiet --no-compile --disable-pip-version-check -c constraints.txt

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) torch
	$(PIP) -e '.[embedded,dev]'
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import service.training.main, service.scoring.main'
	$(BIN)/python -m service.warm
	touch $@

demo: venv       ## the whole product, live (EVENTS=file ITEMS=file RATE=n SPEED=x SECONDS=n)
	@exec $(BIN)/tidemill up --demo $(if $(EVENTS),--events "$(EVENTS)") $(if $(ITEMS),--items "$(ITEMS)") \
	    $(if $(RATE),--rate $(RATE)) $(if $(SPEED),--speed $(SPEED)) $(if $(SECONDS),--seconds $(SECONDS))

check: venv      ## the quick half of `make test`: lint, types, layers, fast tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -m "not slow"

test: venv       ## lint, types, layers and every test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST)

bench: venv      ## every benchmark but `quality`, one figure a line
	@for f in $(filter-out %/bench_quality.py,$(wildcard benchmarks/bench_*.py)); do echo "== $$f"; $(BIN)/python -m benchmarks.$$(basename $$f .py) || exit 1; done

quality: venv    ## Tidemill's lists beside other libraries': an hour or two (ARGS="FILE --rivals NAME")
	$(PIP) -e '.[embedded,dev,quality]'
	$(BIN)/python -m benchmarks.bench_quality $(ARGS)

clean:           ## removes the environment and the caches
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache .cache *.egg-info
