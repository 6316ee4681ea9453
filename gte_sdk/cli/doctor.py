"""`gte doctor`: what this machine, installation and process offer the SDK, and a self-test."""

import importlib.metadata
import json
import os
import platform
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import click
import numpy as np

import gte_sdk
from gte_sdk import _kernels
from gte_sdk.cli.model_options import model_options, open_model
from gte_sdk.cli.terminal import plural
from gte_sdk.embedding.embedder import Embedder
from gte_sdk.errors import DeviceError, GteError
from gte_sdk.model_files.directory import bundled_models
from gte_sdk.model_files.user_cache import cache_folder, cached_bytes
from gte_sdk.runtime.engine import GoldenResult
from gte_sdk.runtime.onnxruntime.devices import (
    count_nodes,
    import_onnxruntime,
    installed_distributions,
    package_conflict,
)
from gte_sdk.runtime.tokens import pad_batch
from gte_sdk.threads import available_threads, deciding_limit, process_cgroup_quota, thread_limits

_PACKAGES = ("numpy", "tokenizers", "onnxruntime", "onnxruntime-gpu", "click", "tqdm", "pyarrow", "huggingface-hub")
# The CPU features that decide which kernels run.
_CPU_FEATURES = (
    "avx2",
    "fma",
    "f16c",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512_vnni",
    "amx_int8",
    "asimd",
    "asimddp",
)
_TEXTS = ("A kitten sleeps on the sofa.", "Where is the young cat?", "Interest rates rose again in March.", "")


@click.command()
@model_options
@click.option("--json", "as_json", is_flag=True, help="Print the report as one JSON object.")
def doctor(model: str, device: str, threads: int | None, as_json: bool) -> None:
    """Report versions, CPU, threads and caches, and check that the model embeds.

    The exit code is 0 if the self-test passes, else 1. Include the output when you report a problem.

    \b
    Examples:
      gte doctor
      gte doctor --device cuda
      gte doctor --json > report.json
    """
    report: dict[str, Any] = {
        "versions": _versions(),
        "cpu": _cpu(),
        "threads": {
            "used": available_threads() if threads is None else threads,
            "decided_by": deciding_limit() if threads is None else "--threads",
            "limits": thread_limits(), "cgroup_quota": process_cgroup_quota(),
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS"),
        },
        "onnxruntime": _onnxruntime(),
        "models": {"bundled": bundled_models(), "hub_cache": _hub_cache(), "int8_cache": _int8_cache()},
        "self_test": _self_test(model, device, threads),
    }  # fmt: skip
    if as_json:
        click.echo(json.dumps(report, indent=1))
    else:
        _print(report)
    if not report["self_test"]["passed"]:
        sys.exit(1)


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"gte-sdk": gte_sdk.__version__, "python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {**versions, "system": platform.platform()}


def _cpu() -> dict[str, Any]:
    lines = (line.partition(":") for line in _read("/proc/cpuinfo").splitlines())
    named = {key.strip().lower(): value.strip() for key, _, value in lines}
    flags = set((named.get("flags") or named.get("features") or "").split())
    return {
        "name": named.get("model name") or platform.processor() or platform.machine(),
        "architecture": platform.machine(),
        "features": [feature for feature in _CPU_FEATURES if feature in flags],
        "search_kernels": _kernels.search_instruction_sets(),
        "encoder_kernels": _kernels.encoder_instruction_sets(),
    }


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:  # not Linux
        return ""


def _onnxruntime() -> dict[str, Any]:
    """What the installed packages offer. Whether an offered CUDA starts is seen in the self-test."""
    try:
        offered = list(import_onnxruntime().get_available_providers())
    except DeviceError as error:
        return {"installed": installed_distributions(), "providers_offered": [], "error": str(error)}
    return {
        "installed": installed_distributions(), "providers_offered": offered, "conflict": package_conflict(),
    }  # fmt: skip


def _hub_cache() -> str | None:
    try:
        from huggingface_hub import constants
    except ImportError:
        return None
    return str(constants.HF_HUB_CACHE)


def _int8_cache() -> str | None:
    """Folder and size of the weights that were quantized as models opened."""
    folder = cache_folder()
    models, size = cached_bytes()
    return None if folder is None else f"{folder}: {plural(models, 'model')}, {size / 1e6:.1f} MB"


def _self_test(model: str, device: str, threads: int | None) -> dict[str, Any]:
    """Opens the model and embeds: rows of unit length, the same alone and in a batch, like texts near to each other."""
    started = time.perf_counter()
    try:
        with (
            warnings.catch_warnings(record=True) as caught,
            open_model(model, device, threads) as embedder,
        ):
            opened = time.perf_counter()
            vectors_ND = embedder.embed(list(_TEXTS))
            alone_ND = np.stack([embedder.embed(text) for text in _TEXTS])
            lengths = np.linalg.norm(vectors_ND.astype(np.float64), axis=1)
            unit = bool(np.isfinite(vectors_ND).all() and np.allclose(lengths, 1, atol=1e-4))
            difference = float(np.abs(vectors_ND - alone_ND).max())
            return {
                "passed": unit and difference < 1e-4, "model": model, "fingerprint": embedder.fingerprint,
                "device": embedder.device, "engine": embedder.engine, "variant": embedder.variant,
                **_what_ran(embedder), "warnings": [str(warning.message) for warning in caught],
                "unit_length": unit, "largest_difference_alone_and_in_a_batch": difference,
                "open_ms": round(1000 * (opened - started), 1),
            }  # fmt: skip
    except (GteError, OSError) as error:
        return {"passed": False, "model": model, "error": str(error)}


def _what_ran(embedder: Embedder) -> dict[str, Any]:
    """The instruction set of the native engine, or how many nodes of the graph each provider of onnxruntime ran."""
    report = embedder.report()
    found = {
        "instruction_set": report.instruction_set, "threads": report.threads, "golden_vectors": _golden(report.golden),
    }  # fmt: skip
    if report.engine == "native":
        return {**found, "nodes_by_provider": "none: the native engine runs the whole graph"}
    source = str(report.graph) if isinstance(report.graph, Path) else report.graph.read_bytes()
    inputs = pad_batch(embedder.tokenize(_TEXTS[:1]).ids)._asdict()
    if report.why_not_native:
        found["why_not_native"] = report.why_not_native
    return {**found, "nodes_by_provider": count_nodes(source, report.device, inputs)}


def _golden(result: GoldenResult | None) -> str:
    if result is None:
        return "none in this model directory"
    return f"held: {result.text_count} texts, made by {result.made_by}"


def _print(report: dict[str, Any]) -> None:
    for title, values in report.items():
        click.echo(click.style(title.replace("_", " "), bold=True))
        for name, value in values.items() if isinstance(values, dict) else [("available", values)]:
            click.echo(f"  {name.replace('_', ' '):<40} {_shown(value)}")


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_shown(part)}" for name, part in value.items())
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value is None else str(value)
