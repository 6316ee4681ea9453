"""What a model consists of: the files that a bundle takes, and the check of all files against their hashes."""

import os
from pathlib import Path

from gte_sdk.errors import InputError, ModelFormatError
from gte_sdk.model_files.bundle import LIST_NAME, BundlePath, check_bundle
from gte_sdk.model_files.directory import (
    GRAPH_FILES,
    GTE_JSON,
    INT8_WEIGHTS,
    FileRecord,
    ModelDir,
    available_variants,
    checked_file,
)
from gte_sdk.model_files.graph_file import WEIGHT_FILES, external_data_names
from gte_sdk.model_files.modules import SAFETENSORS
from gte_sdk.model_files.published import CONFIG_JSON, hub_name_of

# What a directory of the Hub holds beside the weights of other frameworks.
_MODEL_SUFFIXES = (".json", ".txt", ".md", ".onnx", ".model")
_MOST_LINKS = 8
LEGAL_NAMES = ("LICENSE", "LICENCE", "NOTICE", "COPYING")


def files_to_bundle(description: ModelDir, variants: tuple[str, ...]) -> dict[str, Path]:
    """The files of a model directory that belong into a bundle, by their names inside.

    variants: the graphs to take; all if empty. Files that gte.json records are compared with their hashes.
    Raises InputError for a bundle or an unknown variant, ModelFormatError for a file that is missing or changed.
    """
    folder = description.path
    if not isinstance(folder, Path):
        raise InputError(f"{folder} is already a bundle; copy it")
    graphs = available_variants(description)
    if missing := [variant for variant in variants if variant not in graphs]:
        raise InputError(f"variant={missing[0]!r}; {folder} holds {sorted(graphs)}")
    if not graphs:
        raise ModelFormatError(
            f"{folder} holds no ONNX graph and no {WEIGHT_FILES[0]}; "
            "export the checkpoint with: python export/to_onnx.py"
        )
    left_out = {
        name for variant, names in GRAPH_FILES.items() if variants and variant not in variants for name in names
    }
    if variants and "fp32" not in variants:
        left_out.update(WEIGHT_FILES)
    if description.files:
        names = [name for name in description.files if name not in left_out]
        files: dict[str, Path] = {}
        for name in names:
            path = checked_file(description, name)
            assert isinstance(path, Path)
            files[name] = path
        return {**files, GTE_JSON: folder / GTE_JSON}
    used = [graph for graph in graphs.values() if graph.endswith(".onnx") and graph not in left_out]
    outside = {name for graph in used for name in external_data_names(folder, graph)}
    tensors = {*graphs.values(), *(f"{layer}/{SAFETENSORS}" for layer in description.dense)}
    if WEIGHT_FILES[1] in graphs.values():
        raise InputError(f"{folder / WEIGHT_FILES[1]}: weights in several files cannot be bundled; save them as one")
    files = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name in left_out or not path.is_file() or name.startswith(".") or "/." in name:
            continue
        if name in outside:
            raise InputError(f"{path}: a graph with data outside its file cannot be bundled; export it as one file")
        if path.suffix in _MODEL_SUFFIXES or name in tensors or path.name.startswith(LEGAL_NAMES):
            _check_inside(folder, path)
            files[name] = path
    needed = [description.tokenizer] if description.token_table is not None else [CONFIG_JSON, description.tokenizer]
    if missing_files := [name for name in needed if name not in files]:
        raise ModelFormatError(f"{folder / missing_files[0]} is missing; export or download the model again")
    return files


def has_own_int8(description: ModelDir) -> bool:
    """Whether the directory has int8 weights or an int8 graph that our export or conversion compared with fp32."""
    name = available_variants(description).get("int8")
    return name is not None and (name == INT8_WEIGHTS or description.fingerprint is not None)


def _check_inside(folder: Path, path: Path) -> None:
    """A link may lead to a file of the directory, and from a snapshot in the Hub's cache to a blob of that model."""
    blobs = (folder.parent.parent / "blobs").absolute() if hub_name_of(folder) else None
    step = path.absolute()
    for _ in range(_MOST_LINKS):
        if step.parent == blobs or not step.is_symlink():
            break
        step = Path(os.path.normpath(step.parent / step.readlink()))  # a blob may be a link too, to a shared one
    if step.parent != blobs and not step.resolve().is_relative_to(folder.resolve()):
        raise ModelFormatError(
            f"{path} links to {path.resolve()}, outside of the model directory; copy the file into it"
        )


def verified_files(description: ModelDir) -> list[str]:
    """Compares every file with its recorded hash and returns their names.

    Raises ModelFormatError for the first that differs, and for a directory without hashes.
    """
    folder = description.path
    if isinstance(folder, BundlePath):
        check_bundle(folder)
        for name, member in folder.members.items():
            if name in description.files and description.files[name] != FileRecord(member.sha256, member.bytes):
                raise ModelFormatError(f"{folder}/{name} is not the file that {GTE_JSON} records; bundle it again")
        return [name for name in folder.members if name != LIST_NAME]
    if not description.files:
        raise ModelFormatError(f"{folder} has no {GTE_JSON} with hashes to compare with; export it, or bundle it")
    for name in description.files:
        checked_file(description, name)
    return list(description.files)
