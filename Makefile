# One chore, one command. Everything is set up from a bare machine with Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PROJECT := pyproject.toml constraints.txt src/xent/__init__.py

.PHONY: help demo plants data lm test lint format bench gpu docs screenshots clean

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 10

demo: $(VENV)/demo  ## train on real digits with torch's loss and with xent's, side by side
	$(BIN)/xent demo

plants: data $(VENV)/examples  ## train on the leaves of Plant Pathology 2020: make plants DATA=DIR
	$(BIN)/python examples/plant_pathology.py --data '$(DATA)'

data:  # before anything is set up
	$(if $(DATA),,$(error Name the folder with train.csv and images/: make plants DATA=DIR))

lm: $(VENV)/examples  ## train a small language model on the standard library's sources
	$(BIN)/python examples/language_model.py

test: $(VENV)/test  ## all tests
	@scripts/find-browser >/dev/null
	$(BIN)/python -m pytest --numprocesses auto

lint: $(VENV)/lint  ## style, types, and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/lint  ## put the code in its usual form
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(VENV)/bench $(VENV)/test  ## measure exactness, speed and memory, and fill the tables of the docs
	$(BIN)/python benchmarks/exactness.py
	$(BIN)/xent bench --output benchmarks/results/speed.json --plots docs/images
	$(BIN)/python benchmarks/linear.py
	$(BIN)/python benchmarks/distributed.py
	$(BIN)/python benchmarks/page.py
	$(BIN)/python benchmarks/tables.py

# Where there is a GPU there is often no network and a torch of its own: nothing is installed.
gpu:  ## on a machine with a GPU, with its own torch: tests, time, memory: make gpu ARGS='--peers DIR'
	PYTHONPATH=src $(PYTHON) benchmarks/gpu.py $(ARGS)
	PYTHONPATH=src $(PYTHON) benchmarks/tables.py

docs: $(VENV)/test  ## write the pages and the picture that come from explanations
	$(BIN)/python scripts/write_answers.py

screenshots: $(VENV)/test  ## take pictures of the page, for the docs and for review
	@scripts/find-browser >/dev/null
	$(BIN)/python scripts/take_screenshots.py

clean:  ## remove what the other commands made
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

# torch comes first and alone: pinned, it is a CPU build where the index has one, and nothing that
# is installed after it can ask for another.
$(VENV)/torch: constraints.txt
	scripts/make-venv $(PYTHON) $(VENV)
	$(INSTALL) torch
	@touch $@

$(VENV)/demo $(VENV)/examples $(VENV)/bench $(VENV)/test $(VENV)/lint: $(VENV)/%: $(VENV)/torch $(PROJECT)
	$(INSTALL) --editable '.[$*]'
	@touch $@
