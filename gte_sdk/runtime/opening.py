"""Chooses what runs a model: the graph, the device and the engine.

There are two engines. "native", the C++ encoder, takes the models of the family on a CPU, in fp32 and in the int8 of
our export: a text's vector does not depend on its batch. "onnxruntime" takes every other graph and every other device.
An engine is used only if it gives the golden vectors of the export (golden.py).
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

from tokenizers import Tokenizer

from gte_sdk.errors import DeviceError, GteError, InputError, ModelFormatError
from gte_sdk.model_files.directory import (
    GTE_JSON,
    INT8_WEIGHTS,
    ModelDir,
    available_variants,
    variant_files,
)
from gte_sdk.model_files.graph_file import WEIGHT_FILES
from gte_sdk.runtime.engine import Engine, EngineSettings, GoldenResult, refuse_not_finite
from gte_sdk.runtime.golden import deviation, read_golden
from gte_sdk.runtime.int8.at_open import LossError, open_int8_file, open_quantized
from gte_sdk.runtime.native.description import NotCoveredError
from gte_sdk.runtime.native.engine import open_native
from gte_sdk.runtime.native.token_table import open_token_table
from gte_sdk.runtime.onnxruntime.devices import choose_device
from gte_sdk.runtime.onnxruntime.graph import open_onnxruntime
from gte_sdk.runtime.tokens import pad_token_id, tokenize

ENGINES = ("auto", "native", "onnxruntime")
_SLOW = {
    ("cuda", "int8"): "most of its nodes run on the CPU, far slower than variant='fp32' or 'fp16' would",
    ("cpu", "fp16"): "CPUs compute in float32 and convert at every node; variant='fp32' is faster and more exact",
}


class _Wanted(NamedTuple):
    """The arguments of `open_engine`."""

    description: ModelDir
    device: str
    variant: str
    engine: str
    settings: EngineSettings
    tokenizer: Tokenizer


def open_engine(
    description: ModelDir,
    device: str,
    variant: str,
    engine: str,
    settings: EngineSettings,
    tokenizer: Tokenizer,
) -> Engine:
    """Opens one graph of a model directory; the arguments are those of Embedder."""
    if engine not in ENGINES:
        raise InputError(f"engine={engine!r}; one of {ENGINES} is supported")
    if description.similarity is not None:
        warnings.warn(
            f"{description.path} compares its vectors by {description.similarity!r} and with their own lengths; here "
            "they have unit length, so ranks may differ from those of its card",
            stacklevel=3,
        )
    if description.token_table is not None:
        if engine == "onnxruntime":
            raise InputError(
                f"engine='onnxruntime'; {description.path} is a table without a graph: leave engine='auto'"
            )
        table = open_token_table(description, device, variant, settings)
        return refuse_not_finite(table, description.path / table.graph_name)
    wanted = _Wanted(description, device, variant, engine, settings, tokenizer)
    chosen, order = _choose_graphs(wanted)
    try:
        return _open_faithful(wanted._replace(device=chosen), order)
    except DeviceError as error:
        if device != "auto" or chosen == "cpu":
            raise
        warnings.warn(f"the CPU is used: {error}", stacklevel=3)
        wanted = wanted._replace(device="cpu")
        _, order = _choose_graphs(wanted)
        return _open_faithful(wanted, order)


def _open_faithful(wanted: _Wanted, order: Sequence[str]) -> Engine:
    """The first variant in `order` that reproduces its golden vectors on this machine, on the requested engine."""
    description = wanted.description
    expected = read_golden(description)
    ids = tokenize(wanted.tokenizer, expected.texts, description.max_tokens).ids if expected else []
    deviations: list[str] = []
    refusals: list[str] = []
    for opened in _openings(wanted, order, refusals):
        variant = opened.variant
        has_file = opened.graph_name in variant_files(description, variant)  # else it was quantized just now
        if expected is not None and variant in expected.vectors and has_file:
            golden = expected.vectors[variant]
            if different := deviation(golden, opened.run(ids, None), variant, exact=opened.name == "native"):
                opened.close()
                computed_by = opened.instruction_set or opened.device
                deviations.append(f"{opened.graph_name} on {opened.name} ({computed_by}) {different}")
                continue
            opened = opened._replace(golden=GoldenResult(len(expected.texts), golden.made_by))
        elif deviations:
            opened.close()  # nothing says that this one is better
            continue
        if deviations:
            warnings.warn(
                f"{'; '.join(deviations)}: this machine does not reproduce the vectors of the export, so "
                f"variant={variant!r} runs on {opened.name!r} instead",
                stacklevel=4,
            )
        if (opened.device, variant) in _SLOW:
            warnings.warn(f"variant={variant!r} on {opened.device!r}: {_SLOW[opened.device, variant]}", stacklevel=4)
        return refuse_not_finite(opened, description.path / opened.graph_name)
    if deviations:
        raise DeviceError(
            f"{description.path}: {'; '.join(deviations)}: this machine does not reproduce the vectors of the export, "
            "and no other variant that may be used does; leave engine='auto', or export variant='fp32' too"
        )
    raise _nothing_runs(wanted, order[0], refusals)


def _openings(wanted: _Wanted, order: Sequence[str], refusals: list[str]) -> Iterator[Engine]:
    """Opens one file after the other, as long as the caller asks for the next. refusals: gets the native engine's.

    Nothing replaces a requested variant that no engine runs at all.
    """
    description, device, requested, engine, settings, tokenizer = wanted
    opened: Engine | None = None
    for variant in order:
        if opened is None and requested not in ("auto", variant):
            return
        names = variant_files(description, variant)
        if engine != "onnxruntime" and device == "cpu" and variant != "fp16":
            native = _first_covered(names, partial(_open_native, description, settings, variant), refusals)
            if native is None and variant == requested == "int8":
                try:
                    float_names = variant_files(description, "fp32")
                    native = _first_covered(
                        float_names, partial(open_quantized, description, settings, tokenizer), refusals
                    )
                except LossError as error:
                    warnings.warn(f"{error}; variant='fp32' is used", stacklevel=5)
                    requested = "auto"
                    continue
            if native is not None:
                opened = native
                yield _checked_width(description, native)
        graph = next((name for name in names if name.endswith(".onnx")), None)
        if engine != "native" and graph is not None:
            opened = open_onnxruntime(description, graph, device, variant, settings, pad_token_id(tokenizer))
            yield _checked_width(description, opened._replace(why_not_native="; ".join(refusals) or None))


def _open_native(description: ModelDir, settings: EngineSettings, variant: str, name: str) -> Engine:
    if name == INT8_WEIGHTS:
        return open_int8_file(description, settings)
    return open_native(description, name, variant, settings)


def _first_covered(names: Sequence[str], open_file: Callable[[str], Engine], refusals: list[str]) -> Engine | None:
    """The first of the files that the native engine covers. refusals: gets why not, of the others."""
    for name in names:
        try:
            return open_file(name)
        except NotCoveredError as error:
            refusals.append(f"{name}: {error}")
    return None


def _nothing_runs(wanted: _Wanted, variant: str, refusals: Sequence[str]) -> GteError:
    description, device = wanted.description, wanted.device
    graphs = available_variants(description)
    reasons = "; ".join(refusals) or "it runs fp32 and int8 on a CPU"
    if variant not in graphs:
        held = f"variant={variant!r}; {description.path} holds {sorted(graphs)}"
        return InputError(f"{held}, and the native engine does not quantize it: {reasons}")
    refused = description.path / graphs[variant]
    if wanted.engine == "native":
        return InputError(f"engine='native' cannot run {refused} on device={device!r}: {reasons}; leave engine='auto'")
    return ModelFormatError(
        f"{refused} is not a graph that onnxruntime runs on device={device!r}, and the native engine does not run it: "
        f"{reasons}; export the checkpoint with: python export/to_onnx.py"
    )


def _checked_width(description: ModelDir, opened: Engine) -> Engine:
    if description.files and opened.dim != description.dim:
        raise ModelFormatError(
            f"{description.path / opened.graph_name} gives vectors of {opened.dim} dimensions, but {GTE_JSON} "
            f"records dim={description.dim}; export the model again"
        )
    return opened


def _choose_graphs(wanted: _Wanted) -> tuple[str, list[str]]:
    """The device, and the variants of the directory: first the one to run, then those that may replace it."""
    description, device, variant, engine, _, _ = wanted
    graphs = available_variants(description)
    if not graphs:
        raise ModelFormatError(
            f"{description.path} has no ONNX graph under a known name and no {WEIGHT_FILES[0]}; "
            "export the checkpoint with: python export/to_onnx.py"
        )
    made_at_open = variant == "int8" and "fp32" in graphs and engine != "onnxruntime" and device in ("auto", "cpu")
    if variant != "auto" and variant not in graphs and not made_at_open:
        raise InputError(f"variant={variant!r}; {description.path} holds {sorted(graphs)}")
    float_graphs = [name for kind, name in graphs.items() if kind in ("fp32", "fp16") and name.endswith(".onnx")]
    if device == "auto" and (not float_graphs or variant == "int8" or engine == "native"):
        device = "cpu"  # onnxruntime's CUDA provider sends most int8 nodes back to the CPU
    if device != "cpu":
        device = choose_device(device)
    proven_int8 = "int8" in graphs and description.fingerprint is not None
    order = ("int8", "fp32", "fp16") if proven_int8 and device == "cpu" else ("fp32", "fp16", "int8")
    present = [name for name in order if name in graphs or (name == "int8" and made_at_open)]
    if variant != "auto":
        present.sort(key=lambda name: name != variant)
    return device, present
