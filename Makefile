PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# pip prints a line for each of its find-links; only its errors matter here.
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
SOURCES := pyproject.toml $(shell git ls-files codec partition proto edge cloud cli 2>/dev/null)

.PHONY: help demo test test-aarch64 test-ray lint proto clean

help:
	@echo "make demo   environment, install, and a real model split over an emulated LTE link"
	@echo "make test   environment, install, linters, types and all tests"
	@echo "make test-aarch64  the edge as emulated 64-bit Arm code, against x86; installs an emulator"
	@echo "make test-ray  two replicas on Ray under load; installs Ray"
	@echo "make lint   ruff and mypy alone"
	@echo "make proto  generate proto/*_pb2* again after a change of splitpoint.proto"
	@echo "make clean  remove the environment and everything built"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python $(SOURCES)
	rm -rf build  # setuptools would install modules from it that are gone
	$(PIP) install ".[demo]"
	@touch $@

$(VENV)/.dev: $(BIN)/python $(SOURCES)
	rm -rf build
	$(PIP) install ".[dev]"
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/splitpoint demo

# A file of tests stays in one process; the longest come first.
# Two processes on two cores: a thread each, or torch's helpers wait for each other.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# ARGS may be --images DIR --bundle NAME.split: with a calibrated bundle it tries fkt, too.
test-aarch64: $(VENV)/.dev
	$(BIN)/python tests/aarch64/run.py $(ARGS)

# Ray's own processes leave two cores little for anything else, and frames have deadlines.
test-ray: $(VENV)/.dev
	$(PIP) install ".[dev,ray]"
	$(BIN)/python -m pytest -m ray tests/cloud/test_ray.py

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p splitpoint.codec -p splitpoint.partition -p splitpoint.proto \
		-p splitpoint.edge -p splitpoint.cloud -p splitpoint.cli

# The virtual path makes the generated code import `splitpoint.proto` as it is installed.
proto: $(VENV)/.dev
	$(BIN)/python -m grpc_tools.protoc -Isplitpoint/proto=proto --python_out=. --pyi_out=. \
		splitpoint/proto/splitpoint.proto
	mv splitpoint/proto/*_pb2* proto/ && rm -r splitpoint

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
