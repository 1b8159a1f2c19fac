# Every target sets up .venv by itself (with uv, which it installs for the user if it is not there).
PY := .venv/bin/python
UV := $(shell command -v uv 2>/dev/null)
DATA ?= ../shared/data

.PHONY: setup demo test test-all lint bench table1 figure3 clean
setup: .venv/.done

.venv/.done: pyproject.toml
ifeq ($(UV),)
	python3 -m pip install --quiet uv || python3 -m pip install --quiet --user --break-system-packages uv
endif
	PATH="$$PATH:$$HOME/.local/bin"; test -x $(PY) || uv venv --python '>=3.11' .venv
	PATH="$$PATH:$$HOME/.local/bin"; uv pip install --quiet --python $(PY) -e '.[train,eval,dev]'
	touch $@

demo: setup
	$(PY) examples/demo.py

test: setup
	$(PY) -m pytest

test-all: setup
	$(PY) -m pytest -m ''

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright

bench: setup
	$(PY) -m benchmarks

table1: setup
	.venv/bin/difflate reproduce table1 --images $(DATA)/sipi --out out/table1.json --force

figure3: setup
	.venv/bin/difflate reproduce figure3 --images $(DATA)/sipi --out out/figure3.png --force

clean:
	rm -rf .venv out runs
