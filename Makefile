# Thin names for `python -m splitmerge VERB`; CI calls the same targets.
PYTHON     ?= python3
VENV       ?= .venv
PY         := $(VENV)/bin/python
SPLITMERGE := $(PY) -m splitmerge

MODEL      ?= smp18
SIZE       ?= 256x512
CHECKPOINT ?= training/checkpoints/$(MODEL)-streets.safetensors
PACKAGE    ?= build/$(MODEL)
BACKEND    ?= auto
PRECISION  ?= fp32
CLIP       ?= drive
DATA       ?= streets
IMAGES     ?= 60
OUT        ?= build/demo
SOURCE     ?= $(OUT)/dashcam.mp4
RUN_NAME   ?= $(basename $(notdir $(SOURCE)))

.PHONY: help demo setup train export engines run compare bench test test-slow lint clean

help:            ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 12

demo: setup      ## export, build, run on a dashcam clip, compare with PyTorch, table and pictures (build/demo)
	$(MAKE) --no-print-directory export engines
	$(SPLITMERGE) data render $(CLIP) --frames $(IMAGES) --size $(SIZE) --out $(OUT)/dashcam.mp4
	$(MAKE) --no-print-directory run SOURCE=$(OUT)/dashcam.mp4
	$(MAKE) --no-print-directory compare

setup: $(VENV)/.ready  ## virtual environment with everything installed
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

train: setup     ## the shipped checkpoint, again, from nothing (about 20 minutes on 2 cores)
	$(SPLITMERGE) train --model $(MODEL) --out runs/$(MODEL)

export: setup    ## checkpoint in, verified package out
	$(SPLITMERGE) export --checkpoint $(CHECKPOINT) --size $(SIZE) --package $(PACKAGE)

engines: setup   ## compile the package's graphs for this machine
	$(SPLITMERGE) build --package $(PACKAGE) --backend $(BACKEND) --precision $(PRECISION)

run: setup       ## an engine on SOURCE=video: overlay video, label masks, a record per frame
	$(SPLITMERGE) run $(SOURCE) --package $(PACKAGE) --precision $(PRECISION) --overlay $(OUT)/$(RUN_NAME)-overlay.mp4 \
	    --masks $(OUT)/$(RUN_NAME)-masks --records $(OUT)/$(RUN_NAME)-frames.jsonl

compare: setup   ## engine against the PyTorch reference and the truth, over IMAGES labelled frames of DATA
	$(SPLITMERGE) compare --package $(PACKAGE) --precision $(PRECISION) --data $(DATA) --images $(IMAGES) \
	    --picture $(OUT)/compare.png --json $(OUT)/compare.json

bench: setup     ## peak memory and time, whole graph against streamed split batches
	$(SPLITMERGE) bench --json build/streaming.json

test: setup      ## everything but the slow checks
	$(PY) -m pytest -m "not slow"

test-slow: setup ## the slow checks
	$(PY) -m pytest -m slow

lint: setup      ## ruff and mypy --strict
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

clean:           ## remove what was built (not the virtual environment)
	rm -rf build .pytest_cache .mypy_cache .ruff_cache *.egg-info
