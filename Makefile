# Two virtual environments: a small one for the page, a full one for notebooks, training and tests.
PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
APP := .venv-app/bin/python
FULL := .venv/bin/python
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help app test notebooks bench report lint clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

.venv-app/ready: requirements-app.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "Python 3.11 or 3.12 is needed (say which: make PYTHON=python3.11 app); found " + sys.version)'
	$(PYTHON) -m venv .venv-app
	$(APP) -m pip install --quiet --disable-pip-version-check -r requirements-app.txt
	@touch $@

.venv/ready: requirements.txt requirements-app.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "Python 3.11 or 3.12 is needed (say which: make PYTHON=python3.11 test); found " + sys.version)'
	$(PYTHON) -m venv .venv
	$(FULL) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $@

app: .venv-app/ready ## set up and open the page on 127.0.0.1:7860 (ARGS="--share" for a public link)
	$(APP) gradio_app.py $(ARGS)

test: .venv/ready ## set up and run the tests (ARGS="-k faces" for some of them)
	$(FULL) -m pytest $(ARGS)

notebooks: .venv/ready ## execute the notebooks from recorded runs, outputs kept (RETRAIN=1 really trains)
	$(FULL) -m jupyter nbconvert --to notebook --execute --inplace --ExecutePreprocessor.record_timing=False notebooks/*.ipynb

bench: .venv/ready ## print how fast and how accurate the whole path is
	$(FULL) -m benchmarks.speed

report: .venv/ready ## write the numbers of README and docs from the records
	$(FULL) -m benchmarks.report

lint: .venv/ready ## check the style
	$(FULL) -m ruff check .

clean: ## remove both virtual environments and all caches
	rm -rf .venv .venv-app fer2013/.cache .pytest_cache .ruff_cache
