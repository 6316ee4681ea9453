"""What holds the house together: import layers, public names, the wheel's contents, the README's session."""

import ast
import doctest
import email
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

import gte_sdk

from .structure import circles, crowded_folders, long_files, tracked_files, wrong_imports, wrong_includes

ROOT = Path(__file__).parent.parent

# The layers of the design: csrc <- gte_sdk <- training <- export. Nothing points the other way.
RUNTIME_PACKAGES = {"gte_sdk", "numpy", "tokenizers"}
OPTIONAL_PACKAGES = {
    "gte_sdk/runtime/onnxruntime/devices.py": {"onnxruntime"},
    "gte_sdk/model_files/hub/download.py": {"huggingface_hub"},
    "gte_sdk/model_files/hub/hub_errors.py": {"huggingface_hub"},
    "gte_sdk/embedding/progress.py": {"tqdm"},
    "gte_sdk/embedding/other_names/tensors.py": {"torch"},
    "gte_sdk/cli": {"click", "tqdm"},
    "gte_sdk/integrations/chroma.py": {"chromadb"},
    "gte_sdk/integrations/haystack.py": {"haystack"},
    "gte_sdk/integrations/lancedb.py": {"lancedb"},
    "gte_sdk/integrations/langchain.py": {"langchain_core"},
    "gte_sdk/integrations/lazy_model.py": {"typing_extensions"},  # for type checkers only
    "gte_sdk/integrations/llama_index.py": {"llama_index"},
    "gte_sdk/integrations/llm.py": {"llm", "click"},
    "gte_sdk/cli/doctor.py": {"huggingface_hub"},
    "gte_sdk/integrations/model_fields.py": {"pydantic"},
    "gte_sdk/integrations/pandas.py": {"pandas", "pyarrow"},
    "gte_sdk/integrations/polars.py": {"polars"},
    "gte_sdk/integrations/ray.py": {"pyarrow"},
    "gte_sdk/integrations/scikit_learn.py": {"sklearn"},
    "gte_sdk/integrations/spark.py": {"pandas", "pyspark"},
    "gte_sdk/cli/embed_ray.py": {"ray"},
    "gte_sdk/agents": {"mcp", "mcp_types", "anyio", "starlette"},
    "gte_sdk/server": {"starlette", "uvicorn", "httptools"},
    "gte_sdk/tables": {"pyarrow"},
    "gte_sdk/passages/reading/ignore_files.py": {"pathspec"},
    "gte_sdk/passages/reading/outline.py": {"tree_sitter"},
    "gte_sdk/passages/reading/pdf.py": {"pypdf"},
}
# Modules that nobody imports who does not want what they need.
LOADED_ON_REQUEST = ("gte_sdk/agents/", "gte_sdk/cli/", "gte_sdk/server/", "gte_sdk/integrations/")
OUR_PACKAGES = {"gte_sdk", "training", "export", "tests", "benchmarks", "examples"}
MAY_IMPORT = {"gte_sdk": {"gte_sdk"}, "training": {"gte_sdk", "training"}, "export": {"gte_sdk", "training", "export"}}

# Inside each package: a room, and the rooms that it may import. docs/architecture.md says the same in words.
# A set is everything allowed: an import that is not written here is refused.
LEAVES = {"_kernels", "atomic_file", "checks", "errors", "threads"}
ROOMS: dict[str, dict[str, set[str]]] = {
    "gte_sdk": {
        "errors": set(),
        "atomic_file": {"errors"},
        "checks": {"errors"},
        "threads": {"errors"},
        "model_files": LEAVES,
        "runtime": LEAVES | {"model_files"},
        "embedding": LEAVES | {"runtime", "model_files"},
        "search": LEAVES,
        "gte_sdk": {"embedding", "search", "errors"},
        "passages": LEAVES | {"gte_sdk", "embedding", "search"},
        "tables": LEAVES | {"gte_sdk", "embedding", "model_files"},
        "agents": LEAVES | {"gte_sdk", "embedding", "model_files", "passages"},
        "server": LEAVES | {"gte_sdk", "agents", "embedding", "passages", "search", "runtime"},
        "integrations": LEAVES | {"gte_sdk", "embedding", "tables", "model_files"},
        "cli": LEAVES
        | {"gte_sdk", "model_files", "runtime", "embedding", "search", "passages", "tables", "server", "agents"},
        "cli/__main__": {"cli"},
        "_pyinstaller": set(),
    },
    "training": {
        "training": set(),
        "loss": set(),
        "recipes": {"loss"},
        "data": {"recipes"},
        "evaluate": {"data"},
        "encoders": set(),
        "runs": {"loss", "recipes", "data", "evaluate", "encoders"},
        **{
            command: {"loss", "recipes", "data", "evaluate", "encoders", "runs"}
            for command in (
                "ablate",
                "average",
                "describe",
                "development",
                "evaluate/__main__",
                "mine_negatives",
                "train",
            )
        },
    },
    "export": {
        "export": set(),
        "external_data": set(),
        "directory": {"external_data"},
        "graphs": {"external_data"},
        "parity": {"external_data"},
        "interop": {"parity"},
        "source": {"directory", "graphs"},
        "golden": {"directory"},
        "ranges": {"directory", "parity"},
        "to_onnx": {"external_data", "directory", "graphs", "parity", "source", "golden", "ranges"},
    },
}
MAY_INCLUDE: dict[str, set[str]] = {
    "machine": set(),
    "tokenizer": {"machine"},
    "encoder/lanes": {"machine"},
    "encoder/layers": {"machine"},
    "encoder": {"encoder/lanes", "encoder/layers", "machine"},
    "search/kernels": {"machine"},
    "search": {"search/kernels", "machine"},
    "bindings": {"search", "search/kernels", "encoder", "encoder/layers", "tokenizer", "machine"},
}
# cli and integrations grow with what they offer: one file a command, one public path an adapter.
ENTRIES: dict[str, int | None] = {
    "gte_sdk": 19, "csrc": 8, "gte_sdk/cli": None, "gte_sdk/integrations": None,
}  # fmt: skip
ENTRIES_OTHERWISE = 13
LINES = 400
CODE = {".py", ".pyi", ".cpp", ".hpp", ".js", ".mjs", ".css", ".html", ".mk"}

PUBLIC_NAMES = [
    "Chunk",
    "DeviceError",
    "Embedder",
    "GteError",
    "HubError",
    "Index",
    "InputError",
    "InputTypeError",
    "ModelFormatError",
    "ModelMismatchError",
    "TruncationWarning",
    "__version__",
    "embed",
    "top_k_cosine",
]


def imports_of(path: Path) -> Iterator[tuple[str, bool]]:
    """Top-level packages that a file imports, each with whether the import runs when the module is loaded."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    in_functions = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        for name in names:
            yield name.split(".")[0], id(node) not in in_functions


def python_files(package: str) -> list[Path]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no files"
    return files


@pytest.mark.parametrize("package", list(MAY_IMPORT))
def test_layers_point_one_way(package: str) -> None:
    for path in python_files(package):
        ours = {name for name, _ in imports_of(path) if name in OUR_PACKAGES}
        assert ours <= MAY_IMPORT[package], f"{path} imports {ours - MAY_IMPORT[package]}"


@pytest.mark.parametrize("package", list(ROOMS))
def test_folders_import_as_the_table_says(package: str) -> None:
    assert circles(ROOMS[package]) == []
    assert wrong_imports(ROOT, tracked_files(ROOT), package, ROOMS[package]) == []


def test_folders_of_csrc_include_as_the_table_says() -> None:
    assert circles(MAY_INCLUDE) == []
    assert wrong_includes(ROOT, tracked_files(ROOT), "csrc", MAY_INCLUDE) == []


def test_folders_and_files_are_small() -> None:
    files = tracked_files(ROOT)
    sources = [path for path in files if path.parts[0] in ("gte_sdk", "csrc", "training", "export")]
    ours = [path for path in sources if path.parts[:2] != ("gte_sdk", "models")]  # the ecosystem's layout
    assert crowded_folders([*ours, PurePosixPath("gte_sdk/models")], ENTRIES, ENTRIES_OTHERWISE) == []
    assert long_files(ROOT, [path for path in files if path.suffix in CODE], LINES) == []
    assert not (ROOT / "interop").exists()


def test_the_runtime_imports_three_packages_and_optional_ones_at_their_use() -> None:
    for path in python_files("gte_sdk"):
        place = path.relative_to(ROOT).as_posix()
        optional = {name for key, names in OPTIONAL_PACKAGES.items() if place.startswith(key) for name in names}
        for name, at_load in imports_of(path):
            if name in sys.stdlib_module_names or name in RUNTIME_PACKAGES:
                continue
            assert name in optional, f"{place} imports {name}"
            assert not at_load or place.startswith(LOADED_ON_REQUEST), f"{place} imports {name} when it is loaded"


def test_only_the_bindings_know_python() -> None:
    sources = sorted((ROOT / "csrc").rglob("*.[ch]pp"))
    assert sources
    for path in sources:
        knows_python = re.search(r"#include\s+<(pybind11|Python\.h)", path.read_text(encoding="utf-8")) is not None
        assert knows_python == ("bindings" in path.parts), path


def test_public_names() -> None:
    assert gte_sdk.__all__ == PUBLIC_NAMES
    assert all(getattr(gte_sdk, name) is not None for name in PUBLIC_NAMES)


def test_no_code_needs_trust() -> None:
    """Nothing of a model directory is ever executed, and no pickle is read."""
    for package in MAY_IMPORT:
        for path in python_files(package):
            text = path.read_text(encoding="utf-8")
            assert not re.search(
                r"trust_remote_code\s*=\s*True|import pickle|torch\.load\((?!.*weights_only=True)", text
            ), path


# --- the wheel


def tracked_package_files() -> set[str]:
    listing = subprocess.run(
        ["git", "ls-files", "gte_sdk"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    assert "gte_sdk/models/gte-mini/onnx/model_quantized.onnx" in listing
    return set(listing)


def wheel_names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def wheel_from_sdist() -> Path:
    """`make` builds dist/ as users get it: the sdist, and the wheel from that sdist."""
    wheels = list((ROOT / "dist").glob("*.whl"))
    assert len(wheels) == 1, "run `make dist/.built` first"
    return wheels[0]


def test_the_wheel_holds_the_package_and_nothing_else(wheel_from_sdist: Path) -> None:
    names = wheel_names(wheel_from_sdist)
    extension = {name for name in names if re.fullmatch(r"gte_sdk/_kernels\.[\w.-]+\.(so|pyd)", name)}
    information = {name for name in names if name.startswith(f"gte_sdk-{gte_sdk.__version__}.dist-info/")}
    assert len(extension) == 1
    assert names - extension - information == tracked_package_files()


def test_the_checkout_builds_the_wheel_that_the_sdist_builds(wheel_from_sdist: Path, tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT], check=True, capture_output=True
    )
    (direct,) = tmp_path.glob("*.whl")
    assert direct.name == wheel_from_sdist.name
    assert wheel_names(direct) == wheel_names(wheel_from_sdist)


def test_the_wheel_depends_on_three_packages(wheel_from_sdist: Path) -> None:
    with zipfile.ZipFile(wheel_from_sdist) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = email.message_from_bytes(archive.read(name))
    requirements = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert {re.split(r"[^\w-]", line)[0] for line in requirements} == {"numpy", "tokenizers", "onnxruntime"}


# --- the README


def test_the_readmes_session_is_true() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    sessions = re.findall(r"```pycon\n(.*?)```", readme, flags=re.DOTALL)
    assert sessions
    for number, session in enumerate(sessions):
        examples = doctest.DocTestParser().get_doctest(session, {}, f"README session {number}", "README.md", 0)
        assert examples.examples
        failures: list[str] = []
        doctest.DocTestRunner(verbose=False).run(examples, out=failures.append)
        assert not failures, "".join(failures)


def test_the_readme_names_commands_that_make_has() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    named = re.findall(r"`make ([\w -]+)`", readme) + re.findall(r"^make ([\w-]+) ", readme, flags=re.MULTILINE)
    assert named
    assert {word for command in named for word in command.split()} <= targets
