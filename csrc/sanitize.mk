# The kernels under sanitizers, on an emulated ARM CPU, and for other systems. Included by the Makefile.
.PHONY: sanitize test-aarch64 test-platforms sanitize-address sanitize-thread

sanitize: sanitize-address sanitize-thread ## self-tests and the extension's tests under ASan and UBSan, then under TSan

# Python itself is not instrumented: the sanitizer's library is loaded before it, and its leak check, which would report
# the interpreter's own memory, stays off.
SANITIZED_PYTEST = cd build/away && PYTHONMALLOC=malloc PYTHONPATH=../sanitize/$(1) \
  LD_PRELOAD="$$($(CXX) -print-file-name=$(2)) $$($(CXX) -print-file-name=libstdc++.so.6)" \
  ../../.venv-wheel/bin/python -m pytest -p no:cacheprovider -c ../../pyproject.toml --rootdir ../.. ../../tests/kernels \
  ../../tests/sdk/runtime/test_word_pieces.py ../../tests/fuzz

sanitize-address: build/sanitize/address/.built .venv-wheel/.installed
	ASAN_OPTIONS=detect_leaks=1 build/sanitize/cmake-address/self_test
	ASAN_OPTIONS=detect_leaks=1 build/sanitize/cmake-address/bert_self_test
	mkdir -p build/away
	ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 && export ASAN_OPTIONS UBSAN_OPTIONS && \
	  $(call SANITIZED_PYTEST,address,libasan.so)

sanitize-thread: build/sanitize/thread/.built .venv-wheel/.installed
	TSAN_OPTIONS=halt_on_error=1 build/sanitize/cmake-thread/self_test --no-fork
	TSAN_OPTIONS=halt_on_error=1 build/sanitize/cmake-thread/bert_self_test
	mkdir -p build/away
	TSAN_OPTIONS="halt_on_error=1 ignore_noninstrumented_modules=1" && export TSAN_OPTIONS && \
	  $(call SANITIZED_PYTEST,thread,libtsan.so)

build/sanitize/address/.built: SANITIZERS := address,undefined
build/sanitize/thread/.built: SANITIZERS := thread
build/sanitize/%/.built: .venv/.development $(SOURCES) $(wildcard tests/kernels/*.cpp)
	rm -rf build/sanitize/$*
	.venv/bin/python -m pip install -q --no-deps --target build/sanitize/$* . -C build-dir=build/sanitize/cmake-$* \
	  -C cmake.build-type=RelWithDebInfo -C cmake.define.GTE_SANITIZE=$(SANITIZERS) -C cmake.define.GTE_TESTS=ON
	touch $@

CROSS_TOOLS := cmake aarch64-linux-gnu-g++ qemu-aarch64
CROSS_MISSING := $(foreach tool,$(CROSS_TOOLS),$(if $(shell command -v $(tool)),,$(tool)))

# Once with everything that the emulator knows, once on a core without the dot product. qemu-user does not survive the
# fork of a process with threads. Debian: cmake g++-aarch64-linux-gnu qemu-user.
test-aarch64: ## the self-tests, cross-compiled, on an emulated ARM CPU
ifneq ($(strip $(CROSS_MISSING)),)
	@echo "test-aarch64: skipped, not installed: $(CROSS_MISSING)"
else
	cmake -S . -B build/aarch64 -DCMAKE_BUILD_TYPE=Release -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
	  -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ -DCMAKE_EXE_LINKER_FLAGS=-static \
	  -DGTE_PYTHON=OFF -DGTE_TESTS=ON -DGTE_WERROR=ON
	cmake --build build/aarch64 --target self_test bert_self_test -j2
	qemu-aarch64 -cpu max build/aarch64/self_test --no-fork
	qemu-aarch64 -cpu cortex-a53 build/aarch64/self_test --no-fork
	qemu-aarch64 -cpu max build/aarch64/bert_self_test
	qemu-aarch64 -cpu cortex-a53 build/aarch64/bert_self_test
endif

# Debian: cmake clang g++-mingw-w64-x86-64-posix wine64 qemu-user. Compilers for the other systems come from PyPI.
test-platforms: test-aarch64 .venv-platforms/.installed ## csrc for Windows, macOS and musl; the self-tests under emulators
	PATH="$(CURDIR)/.venv-platforms/bin:$$PATH" .venv-platforms/bin/python tests/kernels/platforms.py build/platforms

.venv-platforms/.installed: tests/kernels/platforms.py
	$(PYTHON) -m venv --clear .venv-platforms
	.venv-platforms/bin/python -m pip install -q --upgrade pip
	.venv-platforms/bin/python -m pip install -q cmake ziglang
	touch $@
