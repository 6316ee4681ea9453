"""The layouts in which the models that people name are published: what is fetched, and how it is read.

Each is a tiny model in the files and fields of the repository that it stands for: where the graphs lie, which
descriptions there are, and what they do not say.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest

from gte_sdk import Embedder, ModelFormatError
from gte_sdk.model_files import published
from gte_sdk.model_files.directory import bundled_model_path
from gte_sdk.model_files.hub import download as hub

from ..tiny_models import DIM, TABLE, table_graph, tiny_tokenizer, tiny_vector, write_json, write_tiny_model
from .hub_programs import hub_environment, open_all, open_one
from .hub_stand_in import COMMIT, serve_hub

BERT_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
INT8_TABLE = np.round(TABLE * 64) / np.float32(64)
E5 = {"query": "query: ", "passage": "passage: ", "document": "passage: "}
WEB_SEARCH = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
BGE_QUERY = "Represent this sentence for searching relevant passages: "


def write_sentence_transformers(path: Path, pooling: str, *graphs: str, config: dict[str, Any] | None = None) -> None:
    """As sentence-transformers wrote repositories in 2023, when most of these were published."""
    write_tiny_model(path, inputs=BERT_INPUTS)
    (path / "onnx" / "model.onnx").unlink()
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    modules = [
        {"idx": index, "name": str(index), "path": place, "type": f"sentence_transformers.models.{kind}"}
        for index, (place, kind) in enumerate(kinds)
    ]
    write_json(path / "modules.json", modules)
    keys = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    pooling_modes = {f"pooling_mode_{key}": key.startswith(f"{pooling}_") and "sqrt" not in key for key in keys}
    write_json(path / "1_Pooling" / "config.json", {"word_embedding_dimension": DIM, **pooling_modes})
    write_json(path / "sentence_bert_config.json", {"max_seq_length": 24, "do_lower_case": False})
    (path / "config_sentence_transformers.json").unlink()
    if config is not None:
        write_json(path / "config_sentence_transformers.json", config)
    for name in (
        "model.safetensors",
        "pytorch_model.bin",
        "openvino/openvino_model.bin",
        "vocab.txt",
        ".gitattributes",
    ):
        (path / name).parent.mkdir(exist_ok=True)
        (path / name).write_bytes(b"weights of others")
    for name in graphs:
        (path / name).parent.mkdir(exist_ok=True)
        onnx.save(table_graph("last_hidden_state", BERT_INPUTS), str(path / name))


def write_transformers_js(path: Path) -> None:
    """As the conversion script of transformers.js writes repositories: graphs, tokenizer, and nothing of pooling."""
    write_tiny_model(path, inputs=BERT_INPUTS)
    shutil.rmtree(path / "1_Pooling")
    (path / "config_sentence_transformers.json").unlink()
    write_json(path / "quantize_config.json", {"per_channel": True})
    onnx.save(table_graph("last_hidden_state", BERT_INPUTS, INT8_TABLE), str(path / "onnx" / "model_quantized.onnx"))


def write_multilingual_e5(path: Path) -> None:
    write_sentence_transformers(path, "mean")
    write_json(path / "config.json", {"model_type": "xlm-roberta", "hidden_size": DIM, "max_position_embeddings": 20})
    graph = table_graph("last_hidden_state", BERT_INPUTS[:2])
    onnx.save(
        graph,
        str(path / "onnx" / "model.onnx"),
        save_as_external_data=True,
        location="model.onnx_data",
        size_threshold=0,
    )


def write_all_minilm(path: Path) -> None:
    others = ("O1", "O4", "qint8_arm64", "qint8_avx512", "qint8_avx512_vnni", "quint8_avx2")
    versions = {"__version__": {"sentence_transformers": "2.0.0"}}
    graphs = [f"onnx/model_{other}.onnx" for other in others]
    write_sentence_transformers(path, "mean", "onnx/model.onnx", *graphs, config=versions)


class Layout(NamedTuple):
    name: str
    write: Callable[[Path], None]
    graphs: set[str]
    pooling: str
    prompts: dict[str, str]
    max_tokens: int


def gte(path: Path) -> None:
    write_sentence_transformers(path, "mean", "onnx/model.onnx")


def e5(path: Path) -> None:
    write_sentence_transformers(path, "mean", "model.onnx")


def bge(path: Path) -> None:
    write_sentence_transformers(path, "cls", "onnx/model.onnx", config={"__version__": {"transformers": "4.28.1"}})


def arctic(path: Path) -> None:
    prompts = {"prompts": {"query": "query: "}, "default_prompt_name": None}
    write_sentence_transformers(path, "mean", "onnx/model.onnx", config=prompts)


def e5_with_prompts(path: Path) -> None:
    config = {"prompts": {"query": "query: ", "document": "document: "}}
    write_sentence_transformers(path, "mean", "onnx/model.onnx", config=config)


def e5_with_empty_prompts(path: Path) -> None:
    write_sentence_transformers(path, "mean", "onnx/model.onnx", config={"prompts": {"query": "", "document": ""}})


BGE = {"query": BGE_QUERY}
ONNX = {"onnx/model.onnx"}
LAYOUTS = [
    Layout("thenlper/gte-small", gte, ONNX, "mean", {}, 24),
    Layout("thenlper/gte-base", gte, ONNX, "mean", {}, 24),
    Layout("thenlper/gte-large", gte, ONNX, "mean", {}, 24),
    Layout("Supabase/gte-small", write_transformers_js, ONNX, "mean", {}, 32),
    Layout("intfloat/e5-small-v2", e5, {"model.onnx"}, "mean", E5, 24),
    Layout("intfloat/e5-base-v2", e5_with_empty_prompts, ONNX, "mean", E5, 24),
    Layout("intfloat/e5-large", e5_with_prompts, ONNX, "mean", {"query": "query: ", "document": "document: "}, 24),
    Layout("intfloat/multilingual-e5-large", write_multilingual_e5, {*ONNX, "onnx/model.onnx_data"}, "mean", E5, 18),
    Layout("Xenova/e5-small-v2", write_transformers_js, ONNX, "mean", E5, 32),
    Layout("BAAI/bge-small-en-v1.5", bge, ONNX, "cls", BGE, 24),
    Layout("Xenova/bge-base-en-v1.5", write_transformers_js, ONNX, "cls", BGE, 32),
    Layout("sentence-transformers/all-MiniLM-L6-v2", write_all_minilm, ONNX, "mean", {}, 24),
    Layout("Snowflake/snowflake-arctic-embed-xs", arctic, ONNX, "mean", {"query": "query: "}, 24),
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_a_published_layout_is_fetched_and_read(tmp_path: Path, layout: Layout) -> None:
    source = tmp_path / "source"
    layout.write(source)
    with serve_hub(layout.name, source) as (endpoint, _):
        online, offline = open_all([(layout.name, {}), (layout.name, {"offline": True})], endpoint, tmp_path / "cache")
    assert offline == online
    assert online["warnings"] == []
    assert (online["prompts"], online["max_tokens"]) == (layout.prompts, layout.max_tokens)
    assert online["variant"] == "fp32"
    for kind, text in [("query", "red green"), ("document", "red green"), ("vector", "red green")]:
        words = (layout.prompts.get(kind, "") + text).replace(":", " : ")
        np.testing.assert_allclose(online[kind], tiny_vector(words, layout.pooling), atol=1e-6, err_msg=kind)
    snapshot = tmp_path / "cache" / "hub" / f"models--{layout.name.replace('/', '--')}" / "snapshots" / COMMIT
    fetched = {file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*") if file.is_file()}
    assert {name for name in fetched if ".onnx" in name} == layout.graphs
    assert fetched - layout.graphs <= set(hub._DESCRIPTION)
    # The folder that `gte download` prints is the same model, prompts included.
    folder = Embedder(snapshot)
    assert folder.prompts == layout.prompts
    assert folder.fingerprint == online["fingerprint"]


def test_the_int8_graph_where_it_is_asked_for(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_transformers_js(source)
    name = "Supabase/gte-small"
    with serve_hub(name, source) as (endpoint, requests):
        int8, fp32 = open_all([(name, {"variant": "int8"}), (name, {})], endpoint, tmp_path / "cache")
        ids = [2, 4, 5, 3]
        expected = INT8_TABLE[ids].mean(axis=0) / np.linalg.norm(INT8_TABLE[ids].mean(axis=0))
        np.testing.assert_allclose(int8["vector"], expected, atol=1e-6)
        # That int8 was cached first does not make it what "auto" means, pinned or not.
        np.testing.assert_allclose(fp32["vector"], tiny_vector("red green"), atol=1e-6)
        open_one(endpoint, tmp_path / "other", name, variant="int8")
        assert open_one(endpoint, tmp_path / "other", name, revision=COMMIT)["variant"] == "fp32"
        assert sum("model_quantized" in request for request in requests) == 2


def test_our_own_export_on_the_hub_gives_its_int8_graph(tmp_path: Path) -> None:
    source = Path(shutil.copytree(bundled_model_path("gte-mini"), tmp_path / "source"))
    with serve_hub("somebody/gte-mini", source) as (endpoint, requests):
        answer = open_one(endpoint, tmp_path / "cache", "somebody/gte-mini")
        bundled = Embedder("gte-mini")
        np.testing.assert_array_equal(np.float32(answer["vector"]), bundled.embed("red green"))
        assert answer["fingerprint"] == bundled.fingerprint
        assert sum(".onnx" in request for request in requests) == 1


def test_two_weight_files_of_one_graph_are_two_models(tmp_path: Path) -> None:
    fingerprints = set()
    for name, table in (("a", TABLE), ("b", TABLE * np.float32(2))):
        path = tmp_path / name
        write_tiny_model(path)
        graph = table_graph("last_hidden_state", BERT_INPUTS[:2], table)
        onnx.save(
            graph, str(path / "onnx" / "model.onnx"), save_as_external_data=True, location="model.onnx_data",
            size_threshold=0,
        )  # fmt: skip
        fingerprints.add(Embedder(path).fingerprint)
    assert (tmp_path / "a/onnx/model.onnx").read_bytes() == (tmp_path / "b/onnx/model.onnx").read_bytes()
    assert len(fingerprints) == 2


def test_a_cache_that_another_program_filled_is_not_trusted_blindly(tmp_path: Path) -> None:
    source = tmp_path / "source"
    bge(source)
    name = "somebody/else"
    with serve_hub(name, source) as (endpoint, _):
        open_one(endpoint, tmp_path / "cache", name)
        repository = tmp_path / "cache" / "hub" / "models--somebody--else"
        snapshot = repository / "snapshots" / COMMIT
        for left_out in ("modules.json", "1_Pooling/config.json"):
            (snapshot / left_out).unlink()
        (offline,) = open_all([(name, {"offline": True})], endpoint, tmp_path / "cache")
        assert (
            "['modules.json', '1_Pooling/config.json'], so prompts and pooling may be others" in offline["warnings"][0]
        )
        # With the Hub in reach, what is unknown is asked for, even for a commit.
        pinned = open_one(endpoint, tmp_path / "cache", name, revision=COMMIT)
        np.testing.assert_allclose(pinned["vector"], tiny_vector("red", "cls"), atol=1e-6)
        # Half of a description is refused.
        (snapshot / "1_Pooling" / "config.json").unlink()
        half = open_one(endpoint, tmp_path / "cache", name, offline=True)
        assert half["error"] == "ModelFormatError"
        assert "1_Pooling/config.json is missing; modules.json names it: download the model again" in half["message"]


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("models--intfloat--e5-small-v2/snapshots/abc", "intfloat/e5-small-v2"),
        ("models--a--b/snapshots/abc", "a/b"),
        ("models--a--b/abc", None),
        ("datasets--a--b/snapshots/abc", None),
        ("models--a/snapshots/abc", None),
    ],
)
def test_the_name_of_a_snapshot(folder: str, expected: str | None) -> None:
    assert published.hub_name_of(Path("/cache") / folder) == expected


@pytest.mark.parametrize(
    ("name", "query"),
    [
        ("intfloat/e5-base", "query: "),
        ("intfloat/multilingual-e5-small", "query: "),
        ("intfloat/e5-large-unsupervised", "query: "),
        ("intfloat/multilingual-e5-large-instruct", f"{WEB_SEARCH} "),
        ("intfloat/e5-mistral-7b-instruct", None),
        ("BAAI/bge-large-en", BGE_QUERY),
        ("BAAI/bge-small-zh-v1.5", "为这个句子生成表示以用于检索相关文章："),
        ("BAAI/bge-m3", None),
        ("BAAI/bge-reranker-base", None),
        ("somebody/e5-small-v2-ONNX", "query: "),
        ("Qdrant/bge-base-en-v1.5-onnx-Q", BGE_QUERY),
        ("Xenova/UAE-Large-V1", BGE_QUERY),
        ("onnx-community/Qwen3-Embedding-0.6B-ONNX", WEB_SEARCH),
        ("onnx-community/embeddinggemma-300m-ONNX", "task: search result | query: "),
        ("somebody/e5-small-v2-legal", None),
        ("thenlper/gte-small", None),
    ],
)
def test_prompts_that_only_the_card_says(tmp_path: Path, name: str, query: str | None) -> None:
    snapshot = tmp_path / f"models--{name.replace('/', '--')}" / "snapshots" / COMMIT
    assert published.read_prompts(snapshot).get("query") == query
    # The same files outside of the Hub's cache are some model, of which nothing is known.
    assert published.read_prompts(tmp_path) == {}


def test_pooling_without_the_prompt_is_refused(tmp_path: Path) -> None:
    write_tiny_model(tmp_path, prompts={"query": "query: "})
    write_json(tmp_path / "1_Pooling" / "config.json", {"pooling_mode": "mean", "include_prompt": False})
    with pytest.raises(ModelFormatError, match="include_prompt=false, which leaves the prompt's tokens out"):
        Embedder(tmp_path)
    write_json(tmp_path / "config_sentence_transformers.json", {"prompts": {"query": ""}})
    assert json.loads((tmp_path / "1_Pooling" / "config.json").read_text())["include_prompt"] is False
    np.testing.assert_allclose(Embedder(tmp_path).embed("red"), tiny_vector("red"), atol=1e-6)


def external(path: Path, location: str, graph: Any) -> None:
    (path / "onnx").mkdir(exist_ok=True)
    onnx.save(graph, str(path / "onnx" / "model.onnx"), save_as_external_data=True, location=location, size_threshold=0)


def test_what_is_not_known_is_refused_before_the_weights(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_transformers_js(source)
    write_json(source / "config.json", {"model_type": "bert", "hidden_size": DIM, "max_position_embeddings": 32})
    name = "somebody/some-model-ONNX"
    with serve_hub(name, source) as (endpoint, requests):
        refused, known = open_all([(name, {}), (name, {"pooling": "cls"})], endpoint, tmp_path / "cache")
        assert refused["error"] == "ModelFormatError"
        assert refused["message"].startswith(f"model='{name}' revision=None: nothing says how the states of its tokens")
        assert "pass pooling= (--pooling), one of ('mean', 'cls'" in refused["message"]
        assert "Or pass pooling='graph', if onnx/model.onnx has the output sentence_embedding" in refused["message"]
        np.testing.assert_allclose(known["vector"], tiny_vector("red green", "cls"), atol=1e-6)
        assert sum(".onnx" in request for request in requests) == 1
        # A graph with its weights in other files is small: it is looked at, and they are not fetched.
        (source / "onnx" / "model.onnx").unlink()
        external(source, "model.onnx_data", table_graph("last_hidden_state", BERT_INPUTS))
        requests.clear()
        (looked_at,) = open_all([(name, {})], endpoint, tmp_path / "other")
        assert "onnx/model.onnx has no output sentence_embedding, and nothing says" in looked_at["message"]
        assert not any("onnx_data" in request for request in requests)


def test_weights_that_the_graph_names_are_fetched_under_any_name(tmp_path: Path) -> None:
    source = tmp_path / "source"
    bge(source)
    (source / "onnx" / "model.onnx").unlink()
    external(source, "Constant_7_attr__value", table_graph("last_hidden_state", BERT_INPUTS))
    name = "BAAI/bge-m3"
    with serve_hub(name, source) as (endpoint, requests):
        online, offline = open_all([(name, {}), (name, {"offline": True})], endpoint, tmp_path / "cache")
        np.testing.assert_allclose(online["vector"], tiny_vector("red green", "cls"), atol=1e-6)
        assert offline == online
        assert any("Constant_7_attr__value" in request for request in requests)
        snapshot = tmp_path / "cache" / "hub" / "models--BAAI--bge-m3" / "snapshots" / COMMIT
        (snapshot / "onnx" / "Constant_7_attr__value").unlink()
        lacking = open_one(endpoint, tmp_path / "cache", name, offline=True)
        assert "is in the cache without onnx/Constant_7_attr__value; fetch it once" in lacking["message"]
        (source / "onnx" / "Constant_7_attr__value").unlink()
        gone = open_one(endpoint, tmp_path / "other", name)
    assert "has no onnx/Constant_7_attr__value, where onnx/model.onnx has weights" in gone["message"]


def test_gte_download_says_that_a_model_is_there_once_it_embeds(tmp_path: Path) -> None:
    source = tmp_path / "source"
    write_transformers_js(source)
    name = "somebody/some-model"
    command = [sys.executable, "-m", "gte_sdk.cli", "download", name]
    with serve_hub(name, source) as (endpoint, _):
        environment = hub_environment(endpoint, tmp_path / "cache")
        refused = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "pass pooling= (--pooling), one of" in refused.stderr
        fetched = subprocess.run([*command, "--pooling", "mean"], env=environment, capture_output=True, text=True)
        assert fetched.returncode == 0, fetched.stderr
        assert fetched.stdout.strip().endswith(COMMIT)
        # The tokenizer of another model: what was fetched does not embed.
        onnx.save(table_graph("last_hidden_state", BERT_INPUTS, TABLE[:2]), str(source / "onnx" / "model.onnx"))
        environment = hub_environment(endpoint, tmp_path / "other")
        broken = subprocess.run([*command, "--pooling", "mean"], env=environment, capture_output=True, text=True)
    assert (broken.returncode, broken.stdout) == (1, "")
    assert "graph and tokenizer.json belong to different models" in broken.stderr


def test_a_static_model_needs_neither_config_nor_graph(tmp_path: Path) -> None:
    folder = tmp_path / "source" / "0_StaticEmbedding"
    folder.mkdir(parents=True)
    tiny_tokenizer().save(str(folder / "tokenizer.json"))
    tensors = {"embedding.weight": {"dtype": "F32", "shape": list(TABLE.shape), "data_offsets": [0, TABLE.nbytes]}}
    header = json.dumps(tensors).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + TABLE.tobytes())
    modules = [{"type": "sentence_transformers.models.StaticEmbedding", "path": "0_StaticEmbedding"}]
    write_json(tmp_path / "source" / "modules.json", modules)
    (tmp_path / "source" / "onnx").mkdir()
    (tmp_path / "source" / "onnx" / "model.onnx").write_bytes(b"takes offsets")
    name = "sentence-transformers/static-retrieval-mrl-en-v1"
    with serve_hub(name, tmp_path / "source") as (endpoint, requests):
        online, offline = open_all([(name, {}), (name, {"offline": True})], endpoint, tmp_path / "cache")
        assert not any("onnx" in request for request in requests)
    assert online == offline
    words = TABLE[4:6].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(online["vector"], words / np.linalg.norm(words), atol=1e-6)
