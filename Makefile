PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# pip prints a line for each of its find-links; only its errors matter here.
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# mypy does not follow the import hooks of an editable install: it reads the rooms through links.
ROOMS := codec partition proto edge cloud cli
LINKS := $(VENV)/checkout

.PHONY: help demo test test-all coverage test-aarch64 test-ray fuzz lint docs proto clean

help:
	@echo "make demo   environment, install, and a real model split over an emulated LTE link"
	@echo "make test   environment, linters, types and the tests that take seconds: after each edit"
	@echo "make test-all  these and the slow ones: benchmarks in short, the README's session, faults"
	@echo "make coverage  all tests, and which lines they run"
	@echo "make test-aarch64  the edge as emulated 64-bit Arm code, against x86; installs an emulator"
	@echo "make test-ray  two replicas on Ray under load; installs Ray"
	@echo "make fuzz   the codec's C under hostile input for ten minutes; needs clang"
	@echo "make lint   ruff and mypy alone"
	@echo "make docs   the site, as build/site/index.html"
	@echo "make proto  generate proto/*_pb2* again after a change of splitpoint.proto"
	@echo "make clean  remove the environment and everything built"

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# Editable installs: what runs is the checkout, as it is now. The extension is compiled again.
BUILT_FROM := pyproject.toml setup.py $(wildcard codec/native/*.[ch])

$(VENV)/.demo: $(BIN)/python $(BUILT_FROM)
	$(PIP) install -e ".[demo]"
	@touch $@

$(VENV)/.dev: $(BIN)/python $(BUILT_FROM)
	$(PIP) install -e ".[dev]"
	rm -rf $(LINKS) && mkdir -p $(LINKS)/splitpoint
	ln -s $(foreach room,$(ROOMS),$(CURDIR)/$(room)) $(LINKS)/splitpoint/
	@touch $@

demo: $(VENV)/.demo
	$(BIN)/splitpoint demo

# A file of tests stays in one process; the longest come first.
# Three processes on two cores, for they often wait: a thread each, or torch's helpers wait, too.
# Bytecode is kept: the tests start hundreds of processes.
PYTEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test: lint
	$(PYTEST) -m "not slow and not ray"

test-all: lint
	HYPOTHESIS_PROFILE=thorough $(PYTEST)

# Bundles are compiled anew: what the compiler runs for them counts, too.
coverage: BUNDLES = $(abspath $(VENV))/bundles
coverage: $(VENV)/.dev
	rm -rf $(BUNDLES)
	SPLITPOINT_TEST_CACHE=$(BUNDLES) HYPOTHESIS_PROFILE=thorough $(PYTEST) $(foreach room,$(ROOMS),--cov=$(room)) --cov-report=term

# ARGS may be --images DIR --bundle NAME.split: with a calibrated bundle it tries fkt, too.
test-aarch64: $(VENV)/.dev
	$(BIN)/python tests/aarch64/run.py $(ARGS)

# Ray's own processes leave two cores little for anything else, and frames have deadlines.
test-ray: $(VENV)/.dev
	$(PIP) install ".[dev,ray]"
	$(BIN)/python -m pytest -m ray tests/cloud/test_ray.py

# What it finds stays in build/fuzz, and the next run goes on from there.
fuzz: SECONDS = 600
fuzz: $(VENV)/.dev
	$(BIN)/python tests/fuzz/run.py --seconds $(SECONDS) $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=$(LINKS) $(BIN)/mypy -p splitpoint.codec -p splitpoint.partition -p splitpoint.proto \
		-p splitpoint.edge -p splitpoint.cloud -p splitpoint.cli

# Links between pages, headings and names of the reference are checked.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

# The virtual path makes the generated code import `splitpoint.proto` as it is installed.
proto: $(VENV)/.dev
	$(BIN)/python -m grpc_tools.protoc -Isplitpoint/proto=proto --python_out=. --pyi_out=. \
		splitpoint/proto/splitpoint.proto
	mv splitpoint/proto/*_pb2* proto/ && rm -r splitpoint

clean:
	rm -rf $(VENV) build *.egg-info codec/native/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
