"""The runtime's promises on every architecture that the native engine runs: bits, memory, threads, fork."""

import json
import random
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from gte_sdk import Embedder, ModelFormatError, _kernels
from gte_sdk.model_files.directory import read_model_dir
from gte_sdk.runtime.int8.calibrate import measure_maxima
from gte_sdk.runtime.int8.quantize import quantize_encoder
from gte_sdk.runtime.native.description import EncoderWeights
from gte_sdk.runtime.native.engine import load_encoder, run_native
from gte_sdk.runtime.native.weights import read_weights

from ...run_python import run_python
from .look_alikes import CONFIGURATIONS, random_tensors, random_texts, write_look_alike, write_safetensors

# Of every length up to that of the position table; many are longer than a window of local attention. The first one has
# the padding token, which has no position of its own in some of them.
TEXTS = ["[PAD] w8 [PAD] [PAD] w9 w10", *random_texts([2, 3, 5, 16, 17, 64, 65, 130, 300, 512, *range(4, 44, 2)])]


@pytest.fixture(params=CONFIGURATIONS)
def model(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))  # of int8 weights
    return write_look_alike(tmp_path / "model", request.param)


@pytest.fixture(params=["fp32", "int8"])
def variant(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_text_has_the_same_bits_in_any_batch_order_and_thread_count(model: Path, variant: str) -> None:
    embedders = [Embedder(model, variant=variant, threads=threads, max_batch_tokens=700) for threads in (1, 2, 3)]
    assert embedders[0].variant == variant
    alone = np.array([embedders[0].embed(text) for text in TEXTS])
    choose = random.Random(2)
    for index in range(30):
        rows = choose.sample(range(len(TEXTS)), choose.randint(1, 12))
        vectors = embedders[index % 3].embed([TEXTS[row] for row in rows])
        np.testing.assert_array_equal(vectors, alone[rows])


def test_every_instruction_set_gives_the_same_bits(model: Path, variant: str) -> None:
    ids = Embedder(model).tokenize(TEXTS[:8] + TEXTS[12:18]).ids

    def floats() -> EncoderWeights:
        return read_weights(read_model_dir(model), "model.safetensors", "fp32")

    def weights() -> EncoderWeights:
        return floats() if variant == "fp32" else quantize_encoder(floats(), maxima)

    maxima = measure_maxima(load_encoder(floats(), threads=1), ids, lambda share: None)
    fastest = run_native(load_encoder(weights(), threads=2), ids)
    for instruction_set in _kernels.encoder_instruction_sets():
        forced = load_encoder(weights(), 1, instruction_set)
        np.testing.assert_array_equal(run_native(forced, ids), fastest, err_msg=instruction_set)


def test_threads_share_one_embedder(model: Path, variant: str) -> None:
    embedder = Embedder(model, variant=variant, threads=2)
    expected = embedder.embed(TEXTS)
    together = threading.Barrier(8)
    different: list[int] = []

    def work(index: int) -> None:
        together.wait()
        if not np.array_equal(embedder.embed(TEXTS[index:] + TEXTS[:index]), np.roll(expected, -index, axis=0)):
            different.append(index)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not different


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_damaged_weights_never_give_a_vector(model: Path, value: float) -> None:
    tensors = random_tensors(json.loads((model / "config.json").read_text(encoding="utf-8")))
    embeddings = next(name for name in tensors if "embeddings.word" in name or "embeddings.tok" in name)
    in_a_layer = next(name for name in tensors if ".1." in name and name.endswith("weight"))
    for name in (embeddings, in_a_layer):
        damaged = {**tensors, name: tensors[name].copy()}
        damaged[name][8, 3] = value
        write_safetensors(model / "model.safetensors", damaged)
        with pytest.raises(ModelFormatError, match=r"model\.safetensors .*NaN or infinity"):
            Embedder(model).embed("w8 w9")


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and forks")
def test_all_of_them_fork_open_no_socket_and_keep_their_memory(tmp_path: Path) -> None:
    """In one process. The texts of a call have 30,000 tokens: what a layer computes of all at once would take 60 MB."""
    for name in CONFIGURATIONS:
        write_look_alike(tmp_path / name, name)
    program = f"""
import os, socket, sys, warnings
from pathlib import Path
def refuse(*arguments, **options):
    raise AssertionError("a socket")
socket.socket = socket.create_connection = refuse
import gte_sdk
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of every fork with threads
def memory():
    status = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) // 1024
texts = ["w" + " w".join(str(7 + (row * place) % 80) for place in range(500)) for row in range(60)]
for path in sorted(Path({str(tmp_path)!r}).iterdir()):
    model = gte_sdk.Embedder(path, threads=2)
    before = model.embed(texts[:3])
    start = memory()
    if path.name in ("bert", "mpnet", "modernbert", "new"):
        model.embed(texts)
    assert memory() < start + 12, (path.name, start, memory())
    child = os.fork()
    if child == 0:
        os._exit(0 if (model.embed(texts[:3]) == before).all() else 1)
    assert os.waitpid(child, 0)[1] == 0, path.name
assert "onnxruntime" not in sys.modules
"""
    assert run_python(program) == ""
