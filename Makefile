# Every target sets up .venv by itself (with uv, which it installs for the user if it is not there).
PY := .venv/bin/python
UV := $(or $(shell command -v uv 2>/dev/null),python3 -m uv)
DATA ?= ../shared/data
# Processes of tests: as many as cores. A file's tests stay together, for they share what they compute once.
JOBS ?= auto

# Models of the thesis' tables: folders to train on, and how long.
DIFFAE ?= --images $(DATA)/imagenet $(DATA)/bsds --minutes 4 --steps 750

.PHONY: setup demo test test-all test-browser lint bench docs table1 figure3 diffae-evidence clean
setup: .venv/.done

.venv/.done: pyproject.toml
	@$(UV) --version >/dev/null 2>&1 || python3 -m pip install --quiet uv || \
		python3 -m pip install --quiet --user --break-system-packages uv
	test -x $(PY) || $(UV) venv --quiet --python '>=3.11' .venv
	$(UV) pip install --quiet --python $(PY) -e '.[train,eval,dev]'
	touch $@

demo: setup
	$(PY) examples/demo.py

test: setup
	$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

test-all: setup
	$(PY) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder -m ''

# The pages of reports, studies and the studio in headless Chromium.
test-browser: setup
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null || { \
		echo 'test-browser needs Chromium and its driver: apt-get install chromium chromium-driver'; exit 1; }
	@# only here: gradio holds Pillow below 13
	$(UV) pip install --quiet --python $(PY) -e '.[studio]'
	$(PY) -m pytest -m browser

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m pyright --pythonpath $(PY)
	.venv/bin/lint-imports

bench: setup
	$(UV) pip install --quiet --python $(PY) -e '.[bench]'
	$(PY) -m benchmarks $(if $(wildcard $(DATA)/photos),--photos $(DATA)/photos)

# The documents as a site, into site/: docs/ with the README as its front page.
docs: setup
	$(UV) pip install --quiet --python $(PY) -e '.[docs]'
	rm -rf build/docs && mkdir -p build && cp -R docs build/docs
	sed 's#](docs/#](#g' README.md > build/docs/index.md
	for page in docs/*.md; do sed 's#](../README.md#](index.md#g' $$page > build/$$page || exit 1; done
	.venv/bin/zensical build --clean --strict

table1: setup
	.venv/bin/difflate reproduce table1 --images $(DATA)/sipi --out out/table1.json --force

figure3: setup
	.venv/bin/difflate reproduce figure3 --images $(DATA)/sipi --out out/figure3.png --force

diffae-evidence: setup
	for table in 1 2 3; do .venv/bin/difflate reproduce diffae-table$$table $(DIFFAE) \
		--out out/diffae-table$$table.json --force || exit 1; done
	.venv/bin/difflate reproduce diffae-table4 --images $(DATA)/kodak --out out/diffae-table4.json --force
	.venv/bin/difflate reproduce diffae-figure6 $(DIFFAE) --out out/diffae-figure6.png --force

clean:
	rm -rf .venv out runs build site
