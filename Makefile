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
TARGET     ?= cpu
CLIP       ?= drive
DATA       ?= streets
IMAGES     ?= 60
OUT        ?= build/demo
SOURCE     ?= $(OUT)/dashcam.mp4
WORKERS    ?= 2
NAME       ?= $(shell basename "$(SOURCE)" | sed 's/[.][^.]*$$//')

.PHONY: help demo setup setup-test setup-bench setup-gpu train export calibrate engines run compare bench test test-slow test-gpu lint clean
.NOTPARALLEL:

help:            ## this list
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "%-10s %s\n", $$1, $$2 }'

demo: setup      ## export, build, run on a dashcam clip (and on SOURCE=video), compare with PyTorch: see build/demo
	$(MAKE) --no-print-directory export
	$(MAKE) --no-print-directory engines
	$(SPLITMERGE) data render $(CLIP) --frames $(IMAGES) --size $(SIZE) --out "$(OUT)/dashcam.mp4"
	$(MAKE) --no-print-directory run SOURCE="$(OUT)/dashcam.mp4"
	$(if $(filter-out $(OUT)/dashcam.mp4,$(SOURCE)),$(MAKE) --no-print-directory run)
	$(MAKE) --no-print-directory compare

setup: $(VENV)/.ready  ## virtual environment with what training, exporting and running need
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[export,native,video]"
	touch $@

setup-test: $(VENV)/.ready-test
$(VENV)/.ready-test: $(VENV)/.ready
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	touch $@

train: setup     ## the shipped checkpoint, again, from nothing (it took 40 minutes of one core)
	$(SPLITMERGE) train --model $(MODEL) --out runs/$(MODEL)

export: setup    ## checkpoint in, verified package out
	$(SPLITMERGE) export --checkpoint $(CHECKPOINT) --size $(SIZE) --target $(TARGET) --package $(PACKAGE)

calibrate: setup ## PRECISION=int8 or fp16 graphs into the package, scored on DATA
	$(SPLITMERGE) calibrate --package $(PACKAGE) --precision $(PRECISION) --data "$(DATA)"

engines: setup   ## compile the package's graphs for this machine
	$(SPLITMERGE) build --package $(PACKAGE) --backend $(BACKEND) --precision $(PRECISION)

run: setup       ## an engine on SOURCE=video: overlay video, label masks, a record per frame
	$(SPLITMERGE) run "$(SOURCE)" --package $(PACKAGE) --precision $(PRECISION) \
	    --overlay "$(OUT)/$(NAME)-overlay.mp4" --masks "$(OUT)/$(NAME)-masks" --records "$(OUT)/$(NAME)-frames.jsonl"

compare: setup   ## engine against the PyTorch reference and the truth, over IMAGES labelled frames of DATA
	$(SPLITMERGE) compare --package $(PACKAGE) --precision $(PRECISION) --data "$(DATA)" --images $(IMAGES) \
	    --picture "$(OUT)/compare.png" --json "$(OUT)/compare.json" --report "$(OUT)/compare.html"

# where OpenVINO cannot be had, its rows say so
setup-bench: $(VENV)/.ready-bench
$(VENV)/.ready-bench: $(VENV)/.ready
	-$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[bench]" && touch $@

bench: setup-bench  ## this project beside PyTorch, ONNX Runtime and OpenVINO on this CPU (options in BENCH=)
	$(SPLITMERGE) bench --json build/bench.json --picture build/bench.png --markdown build/bench.md $(BENCH)

test: setup-test ## everything but what is marked slow; where a program is missing that pip has not, tests skip (.ci/install)
	$(PY) -m pytest --numprocesses $(WORKERS) --dist loadfile $(PYTEST)

test-slow: setup-test  ## what is marked slow
	$(PY) -m pytest -m slow

# What cannot be installed is said and left out; TORCH_INDEX and TENSORRT choose other builds (benchmarks/gpu_setup.py).
setup-gpu: setup-test
	$(PY) -m benchmarks.gpu_setup

test-gpu: setup-gpu  ## needs an NVIDIA GPU: builds, runs and compares there, then times it (options in BENCH=)
	@$(PY) -m pytest tests/gpu -v -rs; tests=$$?; \
	$(PY) -m benchmarks.gpu $(BENCH); timed=$$?; \
	if [ $$tests -ne 0 ]; then exit $$tests; fi; exit $$timed

lint: setup-test ## ruff and mypy --strict
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

clean:           ## remove what was built (not the virtual environment)
	rm -rf build .pytest_cache .mypy_cache .ruff_cache *.egg-info
