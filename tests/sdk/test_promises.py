"""The runtime's promises on the bundled model: the same bits in any company, threads, fork, asyncio, flat memory."""

import asyncio
import json
import random
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import gte_sdk
from gte_sdk import Embedder, InputError, InputTypeError, _kernels
from gte_sdk.model_files.directory import bundled_model_path, read_model_dir
from gte_sdk.runtime import golden, tokens
from gte_sdk.runtime.engine import Engine
from gte_sdk.runtime.native import engine as native

from .run_python import run_python

WORDS = ["index", "search", "überraschend", "検索", "данные", "lambda x:", "//", "the", "of", "model", "3.14159", "🚀"]
WORDS += ["SELECT * WHERE", "antidisestablishmentarianism", "naïve", "memory", "yield"]


def random_texts(count: int, seed: int, most_words: int = 60) -> list[str]:
    choose = random.Random(seed)
    return [
        " ".join(choose.choices(WORDS, k=choose.randint(0, choose.choice([3, 12, most_words])))) for _ in range(count)
    ]


@pytest.fixture(scope="module")
def gte_mini() -> Embedder:
    return Embedder("gte-mini")


def open_on(instruction_set: str, threads: int = 1, name: str = "gte-mini") -> tuple[native.NativeModel, Any]:
    directory = bundled_model_path(name)
    pooling = read_model_dir(directory).pooling
    config = json.loads((directory / "config.json").read_text())
    model = native.load_native(directory / "onnx/model_quantized.onnx", config, pooling, threads, instruction_set)
    assert model is not None
    return model, tokens.load_tokenizer(directory / "tokenizer.json")


# --- the same bits in any company


@pytest.mark.parametrize("name", ["gte-mini", "gte-nano"])
def test_the_bundled_models_run_on_the_native_engine(name: str) -> None:
    assert Embedder(name).engine == "native"


@pytest.mark.parametrize(
    ("name", "engine", "batch_count"),
    [("gte-mini", "native", 500), ("gte-mini", "onnxruntime", 40), ("gte-nano", "native", 500)],
)
def test_a_text_has_the_same_bits_in_any_batch_order_and_thread_count(name: str, engine: str, batch_count: int) -> None:
    texts = random_texts(150, seed=1)
    embedders = [Embedder(name, engine=engine, threads=threads, max_batch_tokens=700) for threads in (1, 2, 3)]
    alone = np.array([embedders[0].embed(text) for text in texts])
    choose = random.Random(2)
    for index in range(batch_count):
        rows = choose.sample(range(len(texts)), choose.randint(1, 12))
        vectors = embedders[index % 3].embed([texts[row] for row in rows])
        np.testing.assert_array_equal(vectors, alone[rows])


@pytest.mark.parametrize("name", ["gte-mini", "gte-nano"])
@pytest.mark.parametrize("instruction_set", _kernels.encoder_instruction_sets())
def test_every_instruction_set_gives_the_same_bits(name: str, instruction_set: str) -> None:
    fastest, tokenizer = open_on("", name=name)
    forced, _ = open_on(instruction_set, threads=2, name=name)
    texts = random_texts(12, seed=3, most_words=40) + ["word " * 200] * (instruction_set != "scalar")
    ids = tokens.tokenize(tokenizer, texts, 512).ids
    np.testing.assert_array_equal(native.run_native(forced, ids), native.run_native(fastest, ids))


def test_the_mean_of_the_token_states_is_the_vector() -> None:
    model, tokenizer = open_on("")
    ids = tokens.tokenize(tokenizer, random_texts(20, seed=8), 512).ids
    vectors = native.run_native(model, ids)
    states = np.split(native.run_native(model, ids, token_states=True), np.cumsum([len(row) for row in ids])[:-1])
    means = np.array([rows.astype(np.float64).mean(axis=0) for rows in states])
    np.testing.assert_allclose(vectors, means / np.linalg.norm(means, axis=1, keepdims=True), atol=1e-6)


def test_the_table_is_a_mean_of_rows() -> None:
    texts = random_texts(100, seed=4)
    graph = Embedder("gte-nano", engine="onnxruntime").embed(texts)
    np.testing.assert_allclose(Embedder("gte-nano").embed(texts), graph, atol=1e-6)


@pytest.mark.parametrize("width", [16, 48, 304, 40])
@pytest.mark.parametrize("instruction_set", _kernels.encoder_instruction_sets())
def test_a_table_of_any_width_is_the_mean_of_its_rows(instruction_set: str, width: int) -> None:
    random_numbers = np.random.default_rng(width)
    words_VD = random_numbers.integers(-127, 128, (50, width), dtype=np.int8)
    scales_V = random_numbers.uniform(0.1, 2, 50).astype(np.float32)
    table = _kernels.Encoder(words_VD, scales_V, width, 1, 0, 0.0, "mean", False, "gelu", False)
    ids = random_numbers.integers(0, 50, 40, dtype=np.int32)
    vectors_ND = np.empty((3, width), dtype=np.float32)
    table.encode(ids, np.array([0, 1, 20, 40]), vectors_ND, 256, 1, instruction_set, False)
    rows_TD = (words_VD * scales_V[:, None].astype(np.float64))[ids]
    means_ND = np.array([rows_TD[first:last].mean(axis=0) for first, last in ((0, 1), (1, 20), (20, 40))])
    expected_ND = means_ND / np.linalg.norm(means_ND, axis=1, keepdims=True)
    np.testing.assert_allclose(vectors_ND, expected_ND, atol=1e-6)


def test_the_native_engine_computes_what_the_graph_says(gte_mini: Embedder) -> None:
    texts = random_texts(100, seed=4)
    graph = Embedder("gte-mini", engine="onnxruntime").embed(texts)
    cosines = (graph.astype(np.float64) * gte_mini.embed(texts)).sum(axis=1)
    # What is left comes from values that lie between two integer steps and are rounded to the other one.
    assert cosines.min() > golden.LEAST_COSINE["int8"]
    assert cosines.mean() > 0.999


def test_an_engine_that_cannot_run_the_graph_is_an_error(tmp_path: Path) -> None:
    from .tiny_models import write_tiny_model

    directory = write_tiny_model(tmp_path)
    assert Embedder(directory).engine == "onnxruntime"
    with pytest.raises(InputError, match=r"engine='native' cannot run .*model\.onnx on device='cpu'"):
        Embedder(directory, engine="native")
    with pytest.raises(InputError, match="engine='fast'; one of"):
        Embedder(directory, engine="fast")


# --- threads, fork, asyncio, other libraries


def test_sixty_four_threads_share_one_embedder(gte_mini: Embedder) -> None:
    texts = random_texts(64, seed=5)
    expected = gte_mini.embed(texts)
    results: list[NDArray[np.float32] | None] = [None] * 64
    together = threading.Barrier(64)

    def work(index: int) -> None:
        together.wait()
        results[index] = gte_mini.embed(texts[index:] + texts[:index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, result in enumerate(results):
        assert result is not None
        np.testing.assert_array_equal(result, np.roll(expected, -index, axis=0))


@pytest.mark.skipif("not hasattr(__import__('os'), 'fork')", reason="this system has no fork")
@pytest.mark.parametrize("engine", ["native", "onnxruntime"])
def test_a_forked_child_embeds_and_says_nothing(engine: str) -> None:
    program = (
        f"engine = {engine!r}"
        + """
import os, warnings
import gte_sdk
model = gte_sdk.Embedder(engine=engine)
texts = ["a text of several words"] * 50
before = model.embed(texts)
warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of every fork with threads
child = os.fork()
if child == 0:
    os._exit(0 if (model.embed(texts) == before).all() else 1)
assert os.waitpid(child, 0)[1] == 0
assert (model.embed(texts) == before).all()
"""
    )
    assert run_python(program) == ""


def test_asyncio_callers_share_batches(gte_mini: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = random_texts(60, seed=6)
    expected = gte_mini.embed(texts)
    runs: list[int] = []
    opened: Engine = gte_mini._engine

    def counted(ids: Any, max_rows: int | None) -> NDArray[np.float32]:
        runs.append(len(ids))
        return opened.run(ids, max_rows)

    monkeypatch.setattr(gte_mini, "_engine", opened._replace(run=counted))

    async def callers() -> list[NDArray[np.float32]]:
        single = [gte_mini.aembed(text) for text in texts[:50]]
        return list(await asyncio.gather(*single, gte_mini.aembed(texts[50:]), gte_mini.aembed([])))

    for _ in range(2):  # a second event loop, too
        runs.clear()
        *vectors, rows, none = asyncio.run(callers())
        np.testing.assert_array_equal(np.array(vectors), expected[:50])
        np.testing.assert_array_equal(rows, expected[50:])
        assert none.shape == (0, 384)
        assert sum(runs) == 60
        assert len(runs) < 10


def test_a_failing_asyncio_caller_fails_alone() -> None:
    strict = Embedder("gte-mini", truncation="error", max_tokens=8)

    async def callers() -> list[Any]:
        calls = [strict.aembed("fits"), strict.aembed("does not fit " * 20), strict.aembed(["fits", "too"])]
        return list(await asyncio.gather(*calls, return_exceptions=True))

    fits, cut, both = asyncio.run(callers())
    np.testing.assert_array_equal(fits, strict.embed("fits"))
    np.testing.assert_array_equal(both, strict.embed(["fits", "too"]))
    assert isinstance(cut, InputError)
    with pytest.raises(InputTypeError, match="text 1 is a int"):
        asyncio.run(strict.aembed(["a", 1]))  # type: ignore[list-item]


def test_a_cancelled_asyncio_caller_leaves_the_others_alone(gte_mini: Embedder) -> None:
    async def callers() -> NDArray[np.float32]:
        cancelled, kept = asyncio.create_task(gte_mini.aembed("one")), asyncio.create_task(gte_mini.aembed("two"))
        await asyncio.sleep(0)
        cancelled.cancel()
        return await kept

    np.testing.assert_array_equal(asyncio.run(callers()), gte_mini.embed("two"))


def test_torch_in_the_same_process_changes_nothing(gte_mini: Embedder) -> None:
    pytest.importorskip("torch", reason="torch is not installed here")
    program = """
import torch, gte_sdk
torch.ones(200, 200) @ torch.ones(200, 200)
print(gte_sdk.embed(["some words"] * 100).astype("<f4").tobytes().hex()[:64])
"""
    assert run_python(program).strip() == gte_mini.embed("some words").astype("<f4").tobytes().hex()[:64]


# --- a good desktop citizen


def test_the_bundled_model_needs_no_session_no_cache_and_no_home(tmp_path: Path) -> None:
    program = """
import sys, gte_sdk
gte_sdk.embed(["hi"])
print(sorted({"onnxruntime", "asyncio", "huggingface_hub"} & set(sys.modules)))
"""
    tmp_path.chmod(0o500)
    environment = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
    assert run_python(program, **environment) == "[]\n"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif("not hasattr(__import__('os'), 'sched_setaffinity')", reason="this system has no affinity")
def test_one_processor_means_one_thread() -> None:
    program = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import gte_sdk
from gte_sdk import _kernels
model = gte_sdk.Embedder()
before = len(os.listdir("/proc/self/task"))
ids = [[101, 2023, 102]] * 1000
model._engine.run(ids, None)
print(len(os.listdir("/proc/self/task")) - before)
"""
    assert run_python(program) == "0\n"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_resident_memory_is_flat_over_many_texts(gte_mini: Embedder) -> None:
    def resident_megabytes() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20

    def texts(count: int) -> Any:
        for index in range(count):
            yield "word " * (index % 37 if index % 400 else gte_mini.max_tokens - 2)

    for _ in gte_mini.embed_iter(texts(2500)):
        pass
    growth = []
    for _ in range(2):
        before = resident_megabytes()
        for _ in gte_mini.embed_iter(texts(4000)):
            pass
        growth.append(resident_megabytes() - before)
    assert min(growth) < 15  # a leak would grow each time; a thread's buffers come once


# --- where the vectors go, and when the memory comes back


def test_vectors_are_written_into_an_array_or_memmap(gte_mini: Embedder, tmp_path: Path) -> None:
    texts = random_texts(30, seed=7)
    expected = gte_mini.embed(texts)
    file = np.memmap(tmp_path / "vectors", dtype=np.float32, mode="w+", shape=(40, 384))
    written = gte_mini.embed(texts, out=file[5:35])
    assert np.shares_memory(written, file)
    np.testing.assert_array_equal(file[5:35], expected)
    assert not file[:5].any()
    assert not file[35:].any()
    read_only = np.empty((30, 384), dtype=np.float32)
    read_only.flags.writeable = False
    for out, message in (
        (np.empty((30, 384)), "out has dtype float64; give float32"),
        (np.empty((29, 384), dtype=np.float32), r"out has shape \(29, 384\); 30 texts need \(30, 384\)"),
        (read_only, "out is read-only"),
        ([0.0], "out is a list"),
    ):
        with pytest.raises(InputError, match=message):
            gte_mini.embed(texts, out=out)  # type: ignore[arg-type]


def test_a_closed_embedder_says_so() -> None:
    with Embedder("gte-mini") as model:
        assert model.embed("a").shape == (384,)
    message = "this Embedder is closed; open another one"
    with pytest.raises(InputError, match=message):
        model.embed("a")
    with pytest.raises(InputError, match=message):
        model.embed_chunks("a", late=True)
    with pytest.raises(InputError, match=message):
        asyncio.run(model.aembed("a"))
    assert model.dim == 384
    model.close()


def test_the_shared_embedder_is_not_closed_by_others() -> None:
    Embedder().close()
    assert gte_sdk.embed("a").shape == (384,)
