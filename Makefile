# Every target here is complete on a machine that has Python >= 3.11 (with venv and pip), a Rust
# toolchain and a C compiler: it makes its own virtual environment, builds the wheel in release
# mode, installs it and goes. Stamp files in $(VENV) keep anything from being done twice; a changed
# source rebuilds the wheel. Tests and demo use the installed wheel, never the source tree.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
# How long the long tests may take together. Each has an equal share of it, and goes on until that is
# over or it has come to its full count; at least one round, and then to the end of the round it is in.
SOAK_SECONDS ?= 1800

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check --no-input
WHEEL_DIR := $(VENV)/wheel
DIST_DIR := build/dist
# What the sdist holds, and the notice of what others wrote: the wheels that are released are of it.
DIST_TREE := build/of-sdist
DIST_BUILD := $(BIN)/maturin build --quiet --release --locked --out $(DIST_DIR) \
              --manifest-path $(DIST_TREE)/rust/py/Cargo.toml \
              --target-dir $(abspath $(or $(CARGO_TARGET_DIR),target))
# Interpreters to build a wheel for: those of this machine that are to have one of their own.
PYTHONS ?= $(BIN)/python
# The wheel's crate is a Python module with nothing in it that cargo could test on its own.
RUST_TESTED := --workspace --exclude sayiir-py --locked
# Folders are listed beside their files because removing a file changes only its folder's time.
SOURCES := $(shell find python rust/*/src \( -name __pycache__ -o -name '.*' \) -prune -o -print 2>/dev/null) \
           $(wildcard rust/*/Cargo.toml) Cargo.toml Cargo.lock pyproject.toml README.md LICENSE
TYPED := python tests rust/py $(patsubst %/,%,$(sort $(dir $(wildcard benches/*.py examples/*.py))))

export PYO3_PYTHON := $(abspath $(BIN)/python)
# A path from outside would let the source tree stand in for the wheel.
unexport PYTHONPATH

.PHONY: help demo test check docs bench guard guard-baseline soak dist clean

help: ## list the targets
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/make \1\t\2/p' Makefile | expand -t 21

demo: $(VENV)/.wheel ## see it work: analyse this machine's standard library, durably
	@$(BIN)/sayiir demo

test: $(VENV)/.dev ## run every test of each change
	cargo test --quiet $(RUST_TESTED)
	$(BIN)/pytest

check: $(VENV)/.dev ## lint, formatting, types and stubs
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy $(TYPED)
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml sayiir._core
	@# It asks the first Python on the path where sayiir is installed.
	PATH="$(abspath $(BIN)):$$PATH" basedpyright --verifytypes sayiir --ignoreexternal >$(VENV)/verifytypes.txt || \
	    { cat $(VENV)/verifytypes.txt; exit 1; }
	cargo fmt --all --check
	cargo clippy --quiet --workspace --all-targets --locked -- -D warnings

docs: $(VENV)/.dev ## make a site of the papers, in build/docs
	$(BIN)/python -m sphinx --quiet --fail-on-warning -c docs -d build/doctrees . build/docs
	@echo "build/docs/index.html"

bench: $(VENV)/.dev ## measure, as ratios within one run
	$(if $(wildcard rust/*/benches/*.rs),cargo bench $(RUST_TESTED))
	$(BIN)/pytest benches --assert=plain -o 'python_files=bench_*.py' -o 'python_functions=bench_*' -o timeout=0

guard: $(VENV)/.wheel ## count instructions of the hot paths against the baseline, ± 3 % (needs valgrind)
	$(BIN)/python -m benches.guard

guard-baseline: $(VENV)/.wheel ## count them anew, after a change that is meant, and commit the file
	$(BIN)/python -m benches.guard --write

soak: $(VENV)/.dev ## the long tests with fresh seeds, for SOAK_SECONDS (1800)
	PROPTEST_CASES=5000 cargo test --quiet $(RUST_TESTED)
	SAYIIR_RESULTS=$(abspath tests/results) SAYIIR_FUZZ_EXECUTIONS=10000000 \
	  SAYIIR_FUZZ_SECONDS=$$(( $(SOAK_SECONDS) / 20 + 1 )) \
	  cargo test --quiet --release --package sayiir-core --test hostile --locked
	SAYIIR_RESULTS=$(abspath tests/results) SAYIIR_SOAK_SECONDS=$(SOAK_SECONDS) \
	  $(BIN)/pytest -o timeout=0 -m 'soak or hypothesis' --hypothesis-profile=soak \
	  --hypothesis-seed=$$RANDOM --durations=30

dist: $(VENV)/.dev ## what a release hands out, in build/dist: sdist and wheels, checked and tried in empty environments
	rm -rf $(DIST_DIR) $(DIST_TREE) build/empty-*
	$(BIN)/maturin sdist --out $(DIST_DIR)
	mkdir -p $(DIST_TREE)
	tar xzf $(DIST_DIR)/*.tar.gz --strip-components 1 -C $(DIST_TREE)
	$(BIN)/python rust/py/third_party.py $(DIST_TREE)/LICENSE-THIRD-PARTY.txt
	$(DIST_BUILD) --interpreter $(PYTHONS)
	$(DIST_BUILD) --features abi3 --interpreter $(BIN)/python
	for wheel in $(DIST_DIR)/*.whl; do \
	    $(BIN)/python -m zipfile --list $$wheel | grep licenses/LICENSE-THIRD-PARTY.txt >/dev/null || \
	    { echo "$$wheel lacks the notice of what others wrote"; exit 1; }; done
	$(BIN)/twine check --strict $(DIST_DIR)/*
	$(PYTHON) -m venv build/empty-wheel
	build/empty-wheel/bin/pip install --quiet "sayiir[all] @ file://$$(ls $(CURDIR)/$(DIST_DIR)/*-abi3-*.whl)"
	cd build/empty-wheel && bin/sayiir --version && bin/sayiir demo
	$(PYTHON) -m venv build/empty-sdist
	build/empty-sdist/bin/pip install --quiet $(DIST_DIR)/*.tar.gz
	cd build/empty-sdist && bin/sayiir --version && bin/sayiir demo

clean: ## remove what these targets made (never a CARGO_TARGET_DIR outside)
	rm -rf $(VENV) target build .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find python tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("sayiir needs Python 3.11 or \
	newer, this is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12 ...")'
	@echo "making $(VENV)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

# The version asked for stands in one place, pyproject.toml.
$(VENV)/.maturin: pyproject.toml | $(VENV)/.made
	@echo "installing maturin"
	@$(PIP) install "$$($(BIN)/python -c 'import tomllib; \
	print(tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"][0])')"
	@touch $@

# The second install brings dependencies that are missing; the first replaces the same version.
$(VENV)/.wheel: $(SOURCES) | $(VENV)/.maturin
	@echo "building the wheel (release mode)"
	@rm -rf $(WHEEL_DIR)
	@$(BIN)/maturin build --quiet --release --locked --interpreter $(BIN)/python --out $(WHEEL_DIR)
	@$(PIP) install --force-reinstall --no-deps $(WHEEL_DIR)/*.whl
	@$(PIP) install $(WHEEL_DIR)/*.whl
	@touch $@

# Order-only would leave a rebuilt wheel with yesterday's tools; a normal prerequisite costs a second.
$(VENV)/.dev: $(VENV)/.wheel
	@echo "installing the tools"
	@$(PIP) install "$$(echo $(WHEEL_DIR)/*.whl)[dev]"
	@touch $@
