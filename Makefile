# make demo   separate a real recording and open demo/report.html
# make test   lint, types and tests
# make docs   the tables of docs/, from the data that they show
# All make the environment themselves, in .venv, with the versions of constraints.txt.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test lint types docs bench clean

demo: $(READY)
	$(BIN)/sepfast demo -o demo

# A file's tests share what they make, so a file goes to one process.
test: lint types
	$(BIN)/pytest -q --numprocesses auto --maxprocesses 4 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy follows folders, not package-dir: it is shown the package as it is installed.
types: $(READY)
	@rm -rf build/types && mkdir -p build/types/sepfast
	@ln -s $(CURDIR)/sepfast/* $(CURDIR)/reference $(CURDIR)/kernels $(CURDIR)/bench build/types/sepfast
	cd build/types && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml

docs: $(READY)
	$(BIN)/python docs/render.py
	$(BIN)/sepfast bench bench/results/*.json --pictures docs/figures

bench: $(READY)
	$(BIN)/pytest -q bench

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[triton,test]'
	@touch $@

clean:
	rm -rf .venv build dist demo *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
