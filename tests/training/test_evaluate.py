"""Each protocol on sets small enough to score by hand; the ruler finds sets, texts and reports what is missing."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from gte_sdk.runtime.tokens import load_tokenizer
from training.data.left_out import hash_evaluation_texts
from training.encoders.encoder import Encoder, StaticEncoder, find_special_token_ids
from training.encoders.encoder_files import write_encoder
from training.evaluate.__main__ import main
from training.evaluate.protocols import SetError, score_ranking_set, spearman
from training.evaluate.scores import evaluate, find_sets, hash_texts_of_sets, summarize


def embed(texts: Sequence[str]) -> NDArray[np.float32]:
    """A text is "word angle": vectors are directions in the plane, so every cosine is known."""
    angles = np.radians([float(text.split()[-1]) for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def write_set(root: Path, name: str, **files: Sequence[dict[str, Any]] | str) -> Path:
    path = root / name
    path.mkdir(parents=True)
    for file, rows in files.items():
        if isinstance(rows, str):
            (path / f"{file}.tsv").write_text(rows)
        else:
            (path / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def ranked_set(root: Path, task: str) -> Path:
    """Query q0 ranks d0, d1, d2, ... by angle; q1 lies at the other end; q2 has no relevant document."""
    return write_set(
        root,
        f"{task}/tiny",
        corpus=[{"id": f"d{row}", "title": "title", "text": f"{10 * row}"} for row in range(12)],
        queries=[{"id": "q0", "text": "q 0"}, {"id": "q1", "text": "q 115"}, {"id": "q2", "text": "q 50"}],
        qrels="query-id\tcorpus-id\tscore\nq0\td1\t2\nq0\td3\t1\nq1\td0\t1\nq2\td5\t0\n",
    )


def test_retrieval_is_ndcg_with_exponential_gain_and_code_search_the_reciprocal_rank(tmp_path: Path) -> None:
    path = ranked_set(tmp_path, "retrieval")
    first = (3 / math.log2(3) + 1 / math.log2(5)) / (3 / math.log2(2) + 1 / math.log2(3))
    scores = score_ranking_set(path, embed, embed)
    assert scores["ndcg@10"] == pytest.approx((first + 0) / 2, abs=1e-6)  # q1 finds d0 at rank 12
    assert scores["recall@100"] == pytest.approx(1.0)
    assert scores["mrr"] == pytest.approx((1 / 2 + 1 / 12) / 2, abs=1e-6)
    code = ranked_set(tmp_path, "code_search")
    assert evaluate([path, code], embed) == {
        "retrieval/tiny": pytest.approx(100 * first / 2, abs=1e-4),
        "code_search/tiny": pytest.approx(100 * (1 / 2 + 1 / 12) / 2, abs=1e-4),
    }


def test_queries_have_a_function_of_their_own(tmp_path: Path) -> None:
    path = ranked_set(tmp_path, "code_search")
    turned = evaluate([path], embed, lambda texts: embed([f"q {float(text.split()[-1]) + 10}" for text in texts]))
    assert turned["code_search/tiny"] > evaluate([path], embed)["code_search/tiny"]


def test_sts_is_spearman_and_pair_classification_average_precision(tmp_path: Path) -> None:
    rows = [{"a": "a 0", "b": f"b {angle}", "score": score} for angle, score in ((0, 5), (20, 3), (40, 4), (80, 1))]
    sts = write_set(tmp_path, "sts/tiny", test=rows)
    assert evaluate([sts], embed)["sts/tiny"] == pytest.approx(80.0, abs=1e-4)  # one swap of neighbours among four
    labels = [{"a": "a 0", "b": f"b {angle}", "label": label} for angle, label in ((0, 1), (20, 0), (40, 1), (80, 0))]
    pairs = write_set(tmp_path, "pair_classification/tiny", test=labels)
    assert evaluate([pairs], embed)["pair_classification/tiny"] == pytest.approx(100 * (1 + 2 / 3) / 2, abs=1e-4)


def test_spearman_with_ties_equals_scipys_and_what_is_no_number_has_no_rank() -> None:
    random = np.random.default_rng(2)
    values, others = random.normal(size=200), random.integers(0, 6, size=200).astype(np.float64)
    assert spearman(values, others) == pytest.approx(spearmanr(values, others).statistic)
    values[3] = np.nan
    assert math.isnan(spearman(values, others))
    assert math.isnan(spearman(others, values))


@pytest.mark.filterwarnings("error")
def test_a_vector_of_zeros_is_similar_to_nothing(tmp_path: Path) -> None:
    def embed_some(texts: Sequence[str]) -> NDArray[np.float32]:
        return embed(texts) * np.array([[text != "a 1"] for text in texts], dtype=np.float32)

    rows = [{"a": f"a {angle}", "b": "b 0", "score": score} for angle, score in ((1, 0), (0, 5), (20, 4), (80, 1))]
    path = write_set(tmp_path, "sts/tiny", test=rows)
    assert evaluate([path], embed_some)["sts/tiny"] == pytest.approx(100.0)


def test_reranking_is_mean_average_precision(tmp_path: Path) -> None:
    rows = [
        {"query": "q 0", "positive": ["d 10", "d 30"], "negative": ["d 20", "d 40"]},
        {"query": "q 90", "positive": ["d 10"], "negative": ["d 80"]},
    ]
    path = write_set(tmp_path, "reranking/tiny", test=rows)
    expected = ((1 + 2 / 3) / 2 + 1 / 2) / 2
    assert evaluate([path], embed)["reranking/tiny"] == pytest.approx(100 * expected, abs=1e-4)


def test_classification_and_clustering_separate_what_is_separate(tmp_path: Path) -> None:
    random = np.random.default_rng(0)

    def rows(count: int) -> list[dict[str, Any]]:
        return [
            {"text": f"t {centre + random.normal(0, 3):.3f}", "label": label}
            for label, centre in (("low", 0), ("middle", 60), ("high", 120))
            for _ in range(count)
        ]

    classification = write_set(tmp_path, "classification/tiny", train=rows(40), test=rows(30))
    clustering = write_set(tmp_path, "clustering/tiny", test=rows(60))
    scores = evaluate([classification, clustering], embed)
    assert scores["classification/tiny"] == pytest.approx(100.0)
    assert scores["clustering/tiny"] == pytest.approx(100.0)
    again = evaluate([classification, clustering], embed)
    assert scores == again


def test_means_are_over_tasks_and_over_task_types() -> None:
    summary = summarize({"sts/a": 80.0, "sts/b": 60.0, "retrieval/c": 40.0})
    assert summary == {"sts": 70.0, "retrieval": 40.0, "mean_of_tasks": 60.0, "mean_of_task_types": 55.0}


def test_sets_are_found_by_pattern_path_and_folder(tmp_path: Path) -> None:
    row = [{"a": "a 0", "b": "b 0", "score": 1}]
    paths = [write_set(tmp_path, f"sts/{name}", test=row) for name in ("one", "two")]
    other = ranked_set(tmp_path, "retrieval")
    assert find_sets(["sts/*"], tmp_path) == paths
    assert find_sets([str(paths[1]), "*/*"], tmp_path) == [paths[1], other, paths[0]]
    assert find_sets([str(tmp_path)]) == [other, *paths]
    assert find_sets([str(tmp_path / "sts")]) == paths
    assert find_sets([str(tmp_path / "sts" / "*")]) == paths
    with pytest.raises(SetError, match=r"nothing/\* is not an evaluation set"):
        find_sets(["nothing/*"], tmp_path)
    (tmp_path / "sts" / "empty").mkdir()
    with pytest.raises(SetError, match=r"sts/empty/test\.jsonl is missing"):
        evaluate([tmp_path / "sts" / "empty"], embed)


def test_texts_that_are_measured_on_are_known_but_not_the_training_splits(tmp_path: Path) -> None:
    write_set(
        tmp_path, "classification/c", train=[{"text": "Train!", "label": 0}], test=[{"text": "Test!", "label": 0}]
    )
    write_set(tmp_path, "reranking/r", test=[{"query": "Q?", "positive": ["P."], "negative": ["N"]}])
    write_set(tmp_path, "sts/s", test=[{"a": "Left", "b": "Right", "score": 1}])
    ranked_set(tmp_path, "retrieval")
    hashes = hash_texts_of_sets(find_sets(["*/*"], tmp_path)).tolist()
    known = hash_evaluation_texts(["test", "q", "p", "n", "left", "right", "q 0", "title 10", "10"])
    assert set(known.tolist()) <= set(hashes)
    assert hash_evaluation_texts(["train"])[0] not in hashes
    assert hashes == sorted(hashes)
    assert len(hash_evaluation_texts(["", "..."])) == 0


def test_command_line_measures_a_checkpoint_and_writes_a_report(
    tiny_encoder: Encoder, tokenizer_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_encoder(tiny_encoder, tokenizer_directory, tmp_path / "model")
    sentences = ["open a file", "sort a list", "send a message", "read its lines"]
    rows = [{"a": left, "b": right, "score": row} for row, left in enumerate(sentences) for right in sentences[row:]]
    write_set(tmp_path / "eval", "sts/tiny", test=rows)
    output = tmp_path / "report.json"
    main([str(tmp_path / "model"), "sts/*", "--root", str(tmp_path / "eval"), "--output", str(output), "--dim", "16"])
    report = json.loads(output.read_text())
    assert report["scores"]["sts/tiny"] == pytest.approx(report["summary"]["mean_of_tasks"])
    assert f"{report['scores']['sts/tiny']:.2f}  sts/tiny" in capsys.readouterr().out


def test_another_model_may_embed_the_queries(
    tokenizer_directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokenizer = load_tokenizer(tokenizer_directory / "tokenizer.json")
    table_VD = torch.eye(tokenizer.get_vocab_size())  # no two words are alike
    for name, sign in (("model", 1), ("opposite", -1)):
        static = StaticEncoder(sign * table_VD, find_special_token_ids(tokenizer), max_tokens=16)
        write_encoder(static, tokenizer_directory, tmp_path / name)
    texts = ["open", "sort", "send"]
    rows = [{"id": f"t{number}", "text": text} for number, text in enumerate(texts)]
    qrels = "query-id\tcorpus-id\tscore\n" + "".join(f"{row['id']}\t{row['id']}\t1\n" for row in rows)
    write_set(tmp_path / "eval", "code_search/tiny", queries=rows, corpus=rows, qrels=qrels)
    for arguments, score in (([], 1.0), (["--queries-by", str(tmp_path / "opposite")], 1 / 3)):
        output = tmp_path / "report.json"
        main([str(tmp_path / "model"), str(tmp_path / "eval"), "--output", str(output), *arguments])
        report = json.loads(output.read_text())
        assert report["scores"]["code_search/tiny"] == pytest.approx(100 * score)
        assert report.get("queries_by", "") == "".join(arguments[1:])


def test_the_token_limit_holds_for_exported_models_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"a": f"one two {word}", "b": "one two three", "score": score} for score, word in enumerate(["x", "three"])]
    write_set(tmp_path, "sts/tiny", test=rows)
    for limit, score in (("8", "100.00"), ("4", "nan")):  # four tokens are [CLS] one two [SEP]: all cosines are 1
        main(["gte-nano", "sts/tiny", "--root", str(tmp_path), "--max-tokens", limit])
        assert f"{score}  sts/tiny" in capsys.readouterr().out


def test_code_search_net_ranks_a_query_among_a_thousand_pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.evaluate.protocols.CANDIDATES", 3)
    angles = [(0, 1), (10, 80), (40, 12), (0, 5), (50, 50), (90, 91), (0, 0)]
    rows = [{"query": f"q {query}", "document": f"d {document}"} for query, document in angles]
    path = write_set(tmp_path, "code_search_net/tiny", test=rows)
    # 0 is nearest to its 1; 10 is nearer to 12 and 1 than to its 80; 40 has its 12 behind no other but 80 is farther.
    assert evaluate([path], embed) == {"code_search_net/tiny": pytest.approx(100 * (1 + 1 / 3 + 1 + 1 + 1 + 1) / 6)}
    short = write_set(tmp_path, "code_search_net/short", test=rows[:2])
    assert evaluate([short], embed)["code_search_net/short"] == pytest.approx(100 * (1 + 1 / 2) / 2)


def test_summarization_is_the_mean_correlation_with_the_judges(tmp_path: Path) -> None:
    machine, human = ["m 10", "m 50", "m 30"], ["h 0", "h 90"]  # nearest human summary: 10, 40 and 30 degrees away
    rows = [
        {"human_summaries": human, "machine_summaries": machine, "relevance": [3.0, 1.0, 2.0]},
        {"human_summaries": human, "machine_summaries": machine, "relevance": [3.0, 2.0, 1.0]},
        {"human_summaries": human, "machine_summaries": machine, "relevance": [2.0, 2.0, 2.0]},
    ]
    path = write_set(tmp_path, "summarization/tiny", test=rows)
    assert evaluate([path], embed) == {"summarization/tiny": pytest.approx(100 * (1 + 0.5) / 2)}
    assert len(hash_texts_of_sets([path])) == 5


def test_zero_shot_takes_the_nearest_description(tmp_path: Path) -> None:
    labels = [{"label": 0, "text": "a bad film 0"}, {"label": 1, "text": "a good film 90"}]
    rows = [{"text": "t 10", "label": 0}, {"text": "t 50", "label": 1}, {"text": "t 40", "label": 1}]
    path = write_set(tmp_path, "zero_shot/tiny", labels=labels, test=rows)
    assert evaluate([path], embed) == {"zero_shot/tiny": pytest.approx(100 * 2 / 3)}
