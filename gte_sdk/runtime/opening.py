"""Chooses what runs a model: the graph, the device and the engine.

Two engines run graphs. "native", the C++ encoder, takes the int8 graphs of our export on a CPU: it is the faster one,
and a text's vector does not depend on its batch. "onnxruntime" takes every other graph, and every other device.
An engine is used only if it gives the golden vectors of the export (golden.py).
"""

import warnings
from collections.abc import Iterator, Sequence

from tokenizers import Tokenizer

from gte_sdk.errors import DeviceError, InputError, ModelFormatError
from gte_sdk.model_files.directory import GTE_JSON, ModelDir, available_variants
from gte_sdk.runtime.engine import Engine, EngineSettings, GoldenResult, refuse_not_finite
from gte_sdk.runtime.golden import deviation, read_golden
from gte_sdk.runtime.native.engine import open_native
from gte_sdk.runtime.native.token_table import open_token_table
from gte_sdk.runtime.onnxruntime_devices import choose_device
from gte_sdk.runtime.onnxruntime_graph import open_onnxruntime
from gte_sdk.runtime.tokens import pad_token_id, tokenize

ENGINES = ("auto", "native", "onnxruntime")
_SLOW = {
    ("cuda", "int8"): "most of its nodes run on the CPU, far slower than variant='fp32' or 'fp16' would",
    ("cpu", "fp16"): "CPUs compute in float32 and convert at every node; variant='fp32' is faster and more exact",
}


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
    if description.token_table is not None:
        if engine == "onnxruntime":
            raise InputError(
                f"engine='onnxruntime'; {description.path} is a table without a graph: leave engine='auto'"
            )
        table = open_token_table(description, device, variant, settings)
        return refuse_not_finite(table, description.path / table.graph_name)
    chosen, order = _choose_graphs(description, device, variant, engine)
    try:
        return _open_faithful(description, chosen, order, engine, settings, tokenizer)
    except DeviceError as error:
        if device != "auto" or chosen == "cpu":
            raise
        warnings.warn(f"the CPU is used: {error}", stacklevel=3)
        _, order = _choose_graphs(description, "cpu", variant, engine)
        return _open_faithful(description, "cpu", order, engine, settings, tokenizer)


def _open_faithful(
    description: ModelDir,
    device: str,
    order: Sequence[str],
    engine: str,
    settings: EngineSettings,
    tokenizer: Tokenizer,
) -> Engine:
    """The first variant in `order` that reproduces its golden vectors on this machine, on the requested engine."""
    expected = read_golden(description)
    ids = tokenize(tokenizer, expected.texts, description.max_tokens).ids if expected else []
    deviations: list[str] = []
    for opened in _openings(description, device, order, engine, settings, pad_token_id(tokenizer)):
        variant = opened.variant
        if expected is not None and variant in expected.vectors:
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
    refused = description.path / available_variants(description)[order[0]]
    raise InputError(
        f"engine='native' cannot run {refused} on device={device!r}: it takes int8 BERT graphs of our export, "
        "on a CPU; leave engine='auto'"
    )


def _openings(
    description: ModelDir, device: str, order: Sequence[str], engine: str, settings: EngineSettings, pad_id: int
) -> Iterator[Engine]:
    """Opens one graph after the other, as long as the caller asks for the next."""
    graphs = available_variants(description)
    for variant in order:
        if engine != "onnxruntime" and device == "cpu" and variant == "int8":
            native = open_native(description, graphs[variant], settings)
            if native is not None:
                yield _checked_width(description, native)
        if engine != "native":
            onnxruntime = open_onnxruntime(description, graphs[variant], device, variant, settings, pad_id)
            yield _checked_width(description, onnxruntime)


def _checked_width(description: ModelDir, opened: Engine) -> Engine:
    if description.files and opened.dim != description.dim:
        raise ModelFormatError(
            f"{description.path / opened.graph_name} gives vectors of {opened.dim} dimensions, but {GTE_JSON} "
            f"records dim={description.dim}; export the model again"
        )
    return opened


def _choose_graphs(description: ModelDir, device: str, variant: str, engine: str) -> tuple[str, list[str]]:
    """The device, and the variants of the directory: first the one to run, then those that may replace it."""
    graphs = available_variants(description)
    if not graphs:
        raise ModelFormatError(
            f"{description.path} has no ONNX graph under a known name; "
            "export the checkpoint with: python export/to_onnx.py"
        )
    if variant != "auto" and variant not in graphs:
        raise InputError(f"variant={variant!r}; {description.path} holds {sorted(graphs)}")
    if device == "auto" and (set(graphs) == {"int8"} or variant == "int8" or engine == "native"):
        device = "cpu"  # onnxruntime's CUDA provider sends most int8 nodes back to the CPU
    if device != "cpu":
        device = choose_device(device)
    proven_int8 = "int8" in graphs and description.fingerprint is not None
    order = ("int8", "fp32", "fp16") if proven_int8 and device == "cpu" else ("fp32", "fp16", "int8")
    present = [name for name in order if name in graphs]
    if variant != "auto":
        present.sort(key=lambda name: name != variant)
    return device, present
