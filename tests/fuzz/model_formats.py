"""The formats of a model: JSON files, graphs, golden vectors and bundles, each as a function that damages a valid one.

See formats.py.
"""

import importlib
import json
import struct
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from mutations import mutate_bytes, mutate_json
from numpy.typing import NDArray
from onnx import numpy_helper
from tiny_native_models import HIDDEN, describe, write_tiny_bert, write_tiny_table

from gte_sdk import Embedder, _kernels
from gte_sdk.model_files.bundle import write_bundle
from gte_sdk.model_files.contents import verified_files
from gte_sdk.model_files.directory import INT8_WEIGHTS, read_model_dir
from gte_sdk.runtime.golden import Golden, GoldenVectors, golden_fields
from gte_sdk.runtime.int8.quantize import quantize_encoder
from gte_sdk.runtime.int8.weights_file import write_int8
from gte_sdk.runtime.native.engine import ARITHMETIC
from gte_sdk.runtime.native.safetensors_file import read_safetensors
from gte_sdk.runtime.native.weights import read_weights

Case = Callable[[Random], None]
TEXTS = ["a b c", "hello w1 w2 [SEP] ", "", "AbcDef x,y!" * 3, "é ü 中", *(f"x y z {number}" for number in range(40))]
GRAPH = "onnx/model_quantized.onnx"


def embed_all(model: Path, engine: str = "native") -> None:
    with Embedder(model, offline=True, threads=2, truncation="ignore", engine=engine) as embedder:
        for vectors in (embedder.embed(TEXTS), embedder.embed_query("q"), embedder.embed_chunks("a b c " * 30)):
            numbers = vectors if isinstance(vectors, np.ndarray) else np.array([chunk.vector for chunk in vectors])
            assert np.isfinite(numbers).all(), "a vector is not finite"


def json_file_of_a_model(folder: Path, name: str, *, own: bool, content: Any = None) -> Case:
    """A JSON file of a directory, with or without gte.json; `content` where the tiny model has no such file."""
    model = write_tiny_bert(folder / "model") if name != "tokenizer.json" else write_tiny_table(folder / "model")
    file = model / name
    if content is not None:
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content), encoding="utf-8")
    if own:
        describe(model, HIDDEN)
    whole = file.read_bytes()
    value = json.loads(whole)

    def case(random: Random) -> None:
        if random.random() < 0.3:
            file.write_bytes(mutate_bytes(random, whole))
        else:
            file.write_bytes(json.dumps(mutate_json(random, value)).encode("utf-8", "surrogatepass"))
        if name == "gte.json" and random.random() < 0.3:
            verified_files(read_model_dir(model))
        embed_all(model)

    return case


def golden_vectors(folder: Path) -> Case:
    """With their hash recorded, or nothing of them would be read."""
    model = describe(write_tiny_bert(folder / "model"), HIDDEN)
    texts = TEXTS[:3]
    with Embedder(model, truncation="ignore") as embedder:
        vectors = {"int8": GoldenVectors(ARITHMETIC, embedder.embed(texts))}
    value = json.loads(json.dumps(golden_fields(Golden(texts, vectors))))
    whole = json.dumps(value).encode("utf-8")

    def case(random: Random) -> None:
        if random.random() < 0.3:
            changed = mutate_bytes(random, whole)
        else:
            changed = json.dumps(mutate_json(random, value)).encode("utf-8", "surrogatepass")
        (model / "golden.json").write_bytes(changed)
        embed_all(describe(model, HIDDEN))

    return case


def safetensors(folder: Path) -> Case:
    """Headers with the right length, and any bytes."""
    path = folder / "model.safetensors"
    header = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]},
        "b": {"dtype": "BF16", "shape": [8], "data_offsets": [48, 64]},
        "c": {"dtype": "I64", "shape": [], "data_offsets": [64, 72]},
    }
    values = bytes(range(72))

    def written(header: Any) -> bytes:
        content = json.dumps(header).encode("utf-8", "surrogatepass")
        return len(content).to_bytes(8, "little") + content + values

    def case(random: Random) -> None:
        is_bytes = random.random() < 0.3
        path.write_bytes(mutate_bytes(random, written(header)) if is_bytes else written(mutate_json(random, header)))
        for tensor in read_safetensors(path).values():
            np.abs(tensor.astype(np.float64)).sum()

    return case


def weights_of_a_model(folder: Path) -> Case:
    """model.safetensors and config.json of look-alikes, as the native engine opens them."""
    sys.path.append(str(Path(__file__).parents[1] / "sdk" / "runtime" / "native"))
    look_alikes: Any = importlib.import_module("look_alikes")
    models = [look_alikes.write_look_alike(folder / name, name) for name in look_alikes.CONFIGURATIONS]
    contents = {
        model: ((model / "model.safetensors").read_bytes(), (model / "config.json").read_text()) for model in models
    }

    def case(random: Random) -> None:
        model = random.choice(models)
        weights, config = contents[model]
        length = 8 + int.from_bytes(weights[:8], "little")
        kind = random.randrange(3)
        (model / "config.json").write_text(config)
        if kind == 0:
            (model / "config.json").write_text(json.dumps(mutate_json(random, json.loads(config))))
        elif kind == 1:
            header = json.dumps(mutate_json(random, json.loads(weights[8:length]))).encode("utf-8", "surrogatepass")
            weights = len(header).to_bytes(8, "little") + header + weights[length:]
        else:
            weights = mutate_bytes(random, weights[:length]) + weights[length:]
        (model / "model.safetensors").unlink(missing_ok=True)  # the last case may still map it
        (model / "model.safetensors").write_bytes(weights)
        embed_all(model)

    return case


def int8_weights(folder: Path) -> Case:
    """model_int8.safetensors, with checksums that are right where a reader has to see through more than damage."""
    sys.path.append(str(Path(__file__).parents[1] / "sdk" / "runtime" / "native"))
    look_alikes: Any = importlib.import_module("look_alikes")
    wholes = {}
    for name in look_alikes.CONFIGURATIONS:
        model = look_alikes.write_look_alike(folder / name, name)
        weights = read_weights(read_model_dir(model), "model.safetensors", "fp32")
        layers = list(weights.layers)
        maxima = [
            [np.ones(linear.weights_NK.shape[1], np.float32) for linear in layer[:4]]  # type: ignore[union-attr]
            for layer in layers
        ]
        with (model / INT8_WEIGHTS).open("wb+") as file:
            write_int8(file, quantize_encoder(weights._replace(layers=layers), maxima), {})
        (model / "model.safetensors").unlink()
        wholes[model] = (model / INT8_WEIGHTS).read_bytes()

    def case(random: Random) -> None:
        model = random.choice([*wholes])
        whole = wholes[model]
        length = 8 + int.from_bytes(whole[:8], "little")
        header, tensors = json.loads(whole[8:length]), bytearray(whole[length:])
        kind = random.randrange(5)
        if kind == 0:
            header = mutate_json(random, header)
        elif kind == 1:
            description = mutate_json(random, json.loads(header["__metadata__"]["gte_int8"]))
            header["__metadata__"]["gte_int8"] = json.dumps(description)
        elif kind == 2:  # numbers: codes of -128, scales of NaN
            for _ in range(random.choice([1, 5, 50])):
                place = random.randrange(0, len(tensors) - 4, 4)
                tensors[place : place + 4] = random.choice(
                    [b"\x80" * 4, b"\0\0\xc0\x7f", b"\xff" * 4, random.randbytes(4)]
                )
        content = json.dumps(header, separators=(",", ":")).encode("utf-8", "surrogatepass")
        damaged = len(content).to_bytes(8, "little") + content + bytes(tensors)
        if kind == 3:
            damaged = mutate_bytes(random, whole[:length]) + whole[length:]
        elif kind == 4:
            damaged = mutate_bytes(random, whole)
        if random.random() < 0.9:
            damaged = _with_checksum(damaged)
        (model / INT8_WEIGHTS).unlink(missing_ok=True)  # the last case may still map it
        (model / INT8_WEIGHTS).write_bytes(damaged)
        embed_all(model)

    return case


def _with_checksum(content: bytes) -> bytes:
    """With the checksum that docs/model-directory.md describes, where the header begins as it says."""
    start = 8 + len(b'{"__metadata__":{"checksum":"')
    without = content[:start] + b"00000000" + content[start + 8 :]
    block = 2**20
    others = _kernels.block_checksums(without[block:], block, 1).astype("<u4")
    everything = without[:block] + others.tobytes()
    (checksum,) = _kernels.block_checksums(everything, len(everything))
    return content[:start] + b"%08x" % int(checksum) + content[start + 8 :]


def graph_bytes(folder: Path) -> Case:
    models = [write_tiny_bert(folder / "bert"), write_tiny_table(folder / "table")]
    graphs = {model: (model / GRAPH).read_bytes() for model in models}

    def case(random: Random) -> None:
        model = random.choice(models)
        (model / GRAPH).write_bytes(mutate_bytes(random, graphs[model]))
        embed_all(model)

    return case


def graph_tensors(folder: Path) -> Case:
    """Graphs whose protobuf is right and whose tensors and nodes are not."""
    models = [write_tiny_bert(folder / "bert"), write_tiny_table(folder / "table")]
    graphs = {model: onnx.load(str(model / GRAPH)) for model in models}

    def case(random: Random) -> None:
        model = random.choice(models)
        damaged = onnx.ModelProto()
        damaged.CopyFrom(graphs[model])
        for _ in range(random.choice([0, 1, 1, 2, 3])):
            _damage_graph(random, damaged.graph)
        (model / GRAPH).write_bytes(damaged.SerializeToString())
        embed_all(model)

    return case


def _damage_graph(random: Random, graph: Any) -> None:
    tensor, node = random.choice(graph.initializer), random.choice(graph.node)
    match random.randrange(11):
        case 0:
            sizes = [0, 1, -1, 64, 2**31, 2**62, -(2**63), 120, 16]
            tensor.dims[:] = [random.choice(sizes) for _ in range(random.randrange(4))]
        case 1:
            tensor.data_type = random.choice([0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 16, 17, 99])
        case 2:
            tensor.raw_data = tensor.raw_data[: random.randrange(len(tensor.raw_data) + 1)]
        case 3:
            numbers = _array_of(tensor).astype(np.float32)
            if numbers.size:
                numbers.flat[random.randrange(numbers.size)] = random.choice([np.nan, np.inf, -np.inf, 0, 3e38, -3e38])
            tensor.CopyFrom(numpy_helper.from_array(numbers, tensor.name))
        case 4:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            place = random.choice(["/etc/passwd", "../../../../etc/passwd", "tokenizer.json", "x", "/dev/zero"])
            tensor.external_data.add(key="location", value=place)
        case 5:
            tensor.name = random.choice(graph.initializer).name
        case 6 if node.input:
            names = ["input_ids", "", random.choice(graph.initializer).name]
            node.input[random.randrange(len(node.input))] = random.choice(names)
        case 7:
            node.op_type = random.choice(["Gather", "MatMulInteger", "Gemm", "Loop", "If", "Reshape", ""])
        case 8:
            graph.initializer.remove(tensor)
        case 9:
            graph.node.add().CopyFrom(node)
        case _:
            numbers = _array_of(tensor)
            smaller = numbers.T if random.random() < 0.5 else numbers[: random.randrange(max(1, len(numbers)))]
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(smaller), tensor.name))


def _array_of(tensor: Any) -> NDArray[Any]:
    """Its numbers, where an earlier change left any."""
    try:
        return np.atleast_1d(numpy_helper.to_array(tensor))
    except Exception:  # onnx raises what it likes
        return np.zeros(1, np.float32)


def bundle(folder: Path) -> Case:
    model = describe(write_tiny_table(folder / "model"), 256)
    file = folder / "model.gte"
    names = [path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()]

    def written() -> bytes:
        with file.open("wb") as opened:
            write_bundle(opened, {name: model / name for name in names})
        return file.read_bytes()

    whole = written()
    contents = {name: (model / name).read_bytes() for name in names if name != "gte.json"}
    end = 30 + len("bundle.json")
    (length,) = struct.unpack_from("<I", whole, 18)
    listing = json.loads(whole[end : end + length])

    def case(random: Random) -> None:
        if random.random() < 0.3:  # a member, its hashes right
            name = random.choice([*contents])
            (model / name).write_bytes(mutate_bytes(random, contents[name]))
            describe(model, 256)
            written()
            (model / name).write_bytes(contents[name])
        elif random.random() < 0.5:  # the list of files, its header and checksum right
            changed = json.dumps(mutate_json(random, listing)).encode()
            sizes = struct.pack("<III", zlib.crc32(changed), len(changed), len(changed))
            file.write_bytes(whole[:14] + sizes + whole[26:end] + changed + whole[end + length :])
        elif random.random() < 0.5:
            start = random.randrange(end + length + 4000)
            piece = mutate_bytes(random, whole[start : start + 64])
            file.write_bytes(whole[:start] + piece + whole[start + 64 :])
        else:
            file.write_bytes(mutate_bytes(random, whole))
        if random.random() < 0.3:
            verified_files(read_model_dir(file))
        embed_all(file)

    return case
