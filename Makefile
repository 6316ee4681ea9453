# Everything that a developer, a newcomer or CI runs. Each target does its own set-up from a fresh clone.
# `make` alone lists the targets: the line after ## says what each one is for.
.DELETE_ON_ERROR:
.PHONY: help demo check test test-wheel test-checkout fuzz test-integrations test-gpu test-optimum desktop-example interop site format clean

PYTHON ?= python3
# How many files of tests run at a time; each may take two threads and 2 GB.
WORKERS ?= 2
SOURCES := pyproject.toml CMakeLists.txt LICENSE README.md $(shell find gte_sdk csrc -type f -not -path '*/__pycache__/*')
CPP := $(shell find csrc tests/kernels -name '*.[ch]pp')
IN_PARALLEL = --numprocesses $(WORKERS) --dist loadfile
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt

help: ## list these targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 28

demo: .venv/.user ## install the package into .venv and ask its documentation three questions
	.venv/bin/python examples/standard_library_docs.py build/standard-library-docs
	printf '%s\n' \
	  "How do I embed texts that are too long for the model?" \
	  "How do I get a temporary folder that is deleted afterwards?" \
	  "How can I match file names with wildcards?" \
	  | .venv/bin/gte search - -k 2 README.md docs build/standard-library-docs

check: .venv/.development ## formatting, lint and types: what a commit must pass, in seconds
	.venv/bin/ruff format --check .
	.venv/bin/clang-format --dry-run --Werror $(CPP)
	.venv/bin/ruff check .
	.venv/bin/mypy

test: test-wheel test-checkout ## both parts of the tests, then what was skipped and why
	@.venv/bin/python tests/skipped.py build/test-wheel.xml build/test-checkout.xml

# Away from the checkout's root, where `import gte_sdk` would find the sources instead of the installed wheel.
test-wheel: .venv-wheel/.installed ## the installed wheel, without PyTorch: tests/sdk, tests/kernels and tests/fuzz
	mkdir -p build/away
	cd build/away && ../../.venv-wheel/bin/pytest -c ../../pyproject.toml --rootdir ../.. $(IN_PARALLEL) \
	  --junit-xml ../test-wheel.xml ../../tests/sdk ../../tests/kernels ../../tests/fuzz

test-checkout: .venv/.development dist/.built ## the other tests: training, export, the server, documentation, architecture
	.venv/bin/python -m pytest $(IN_PARALLEL) --junit-xml build/test-checkout.xml tests \
	  --ignore tests/sdk --ignore tests/kernels --ignore tests/fuzz --ignore tests/integrations --ignore tests/optimum \
	  --ignore tests/gpu

fuzz: .venv-wheel/.installed .venv/.development ## 2,000 damaged files of each format, and requests; make test runs 40
	mkdir -p build/away
	cd build/away && GTE_FUZZ_CASES=2000 ../../.venv-wheel/bin/pytest -c ../../pyproject.toml --rootdir ../.. ../../tests/fuzz \
	  ../../tests/kernels/test_random_arguments.py ../../tests/sdk/runtime/test_text_pieces.py
	GTE_FUZZ_CASES=2000 .venv/bin/python -m pytest tests/server/test_random_requests.py tests/server/test_memory.py

test-integrations: .venv-integrations/.installed ## the adapters against the frameworks themselves, 1.5 GB of packages
	mkdir -p build/away
	cd build/away && ../../.venv-integrations/bin/pytest -c ../../pyproject.toml --rootdir ../.. ../../tests/integrations

# On a machine without a GPU, each test runs on the CPU only, and what is left out stands at the end.
test-gpu: .venv/.development ## every path on CUDA: training, ONNX Runtime, throughput; says what it skipped
	.venv/bin/python -m pytest --junit-xml build/test-gpu.xml tests/gpu
	.venv/bin/python benchmarks/training.py profile
	@.venv/bin/python tests/skipped.py build/test-gpu.xml

test-optimum: .venv-optimum/.installed ## exports by optimum-onnx, whose transformers is an older one
	.venv-optimum/bin/python -m pytest tests/optimum

# PyInstaller takes what is in its environment, so that holds the wheel and nothing else; see docs/desktop.md.
desktop-example: .venv/.development .venv-desktop/.installed ## freeze examples/desktop and run it on an X server, no network
	.venv-desktop/bin/pyinstaller --noconfirm --log-level WARN --distpath build/desktop --workpath build/desktop-work \
	  examples/desktop/folder_search.spec
	GTE_FROZEN_EXAMPLE=build/desktop/folder-search .venv/bin/python -m pytest -s tests/examples/test_frozen_desktop.py

# Each client in an environment of its own, transformers.js by npm; see docs/export.md.
interop: .venv/.development ## an exported model in other clients: transformers.js, fastembed and more
	.venv/bin/python -m export.interop.compare build/interop

# Its commands' pages ask the package itself, so it is installed beside the site's tools.
site: .venv-site/.installed ## the documentation as a web site in build/site, to be read from the disk too
	NO_MKDOCS_2_WARNING=1 .venv-site/bin/mkdocs build --strict

format: .venv/.development ## format the code and mend what the linter can
	.venv/bin/ruff format .
	.venv/bin/clang-format -i $(CPP)
	.venv/bin/ruff check --fix .

clean: ## remove environments and build outputs
	rm -rf .venv .venv-wheel .venv-integrations .venv-optimum .venv-desktop .venv-site .venv-platforms build dist

.venv/bin/python:
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install -q --upgrade pip

# What a user gets: the package and its command line, nothing of PyTorch.
.venv/.user: .venv/bin/python constraints.txt $(SOURCES)
	if [ -e .venv/.development ]; then $(MAKE) .venv/.development; else .venv/bin/python -m pip install -q '.[cli]'; fi
	touch $@

.venv/.development: .venv/bin/python constraints.txt pyproject.toml CMakeLists.txt $(shell find csrc -type f)
	.venv/bin/python -m pip install -q -e '.[cli,documents,code,hub,mcp,serve,swagger,train,export]' --group dev
	touch $@ .venv/.user

dist/.built: .venv/.development $(SOURCES)
	rm -rf dist
	.venv/bin/python -m build --outdir dist . >build/dist.log 2>&1 || { cat build/dist.log; exit 1; }
	touch $@

.venv-wheel/.installed: dist/.built
	rm -rf .venv-wheel
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install -q --upgrade pip
	.venv-wheel/bin/python -m pip install -q "$$(ls dist/*.whl)[cli,documents,code,hub,mcp]" --group test
	touch $@

.venv-integrations/.installed: dist/.built
	rm -rf .venv-integrations
	$(PYTHON) -m venv .venv-integrations
	.venv-integrations/bin/python -m pip install -q --upgrade pip
	.venv-integrations/bin/python -m pip install -q dist/*.whl --group test --group integrations
	touch $@

.venv-optimum/.installed: export PIP_CONSTRAINT := $(CURDIR)/constraints-optimum.txt
.venv-optimum/.installed: constraints-optimum.txt pyproject.toml CMakeLists.txt $(shell find csrc -type f)
	rm -rf .venv-optimum
	$(PYTHON) -m venv .venv-optimum
	.venv-optimum/bin/python -m pip install -q --upgrade pip
	.venv-optimum/bin/python -m pip install -q -e '.[optimum]' --group optimum
	touch $@

.venv-desktop/.installed: dist/.built
	rm -rf .venv-desktop
	$(PYTHON) -m venv .venv-desktop
	.venv-desktop/bin/python -c "import tkinter"
	.venv-desktop/bin/python -m pip install -q --upgrade pip
	.venv-desktop/bin/python -m pip install -q pyinstaller dist/*.whl
	touch $@

.venv-site/.installed: constraints.txt $(SOURCES)
	$(PYTHON) -m venv --clear .venv-site
	.venv-site/bin/python -m pip install -q --upgrade pip
	.venv-site/bin/python -m pip install -q '.[cli]' --group docs
	touch $@

include csrc/sanitize.mk
