# make demo and make test are all a newcomer needs; each builds .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all check bench clean

demo: $(READY)
	$(BIN)/scotoma demo -o demo

test: check
	$(BIN)/python -m pytest -q

test-all: check
	$(BIN)/python -m pytest -q -m ""

check: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[bench]'
	$(BIN)/python -m pip install --quiet --no-deps 'torchattacks==3.5.1'
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) demo dist build

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch torchvision
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps nevergrad
	touch $(READY)
