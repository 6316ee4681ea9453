"""`gte models`, `download`, `doctor` and `bench`, with tiny real models and a stand-in for the Hub."""

import json
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from gte_sdk import Embedder, __version__
from gte_sdk.cli.commands import gte
from gte_sdk.model_files.directory import bundled_models
from gte_sdk.runtime.native.engine import ARITHMETIC
from gte_sdk.threads import available_threads

from ..model_files.hub_programs import hub_environment
from ..model_files.hub_stand_in import COMMIT, serve_hub
from ..tiny_models import DIM, TABLE, write_tiny_model

NAME = "somebody/tiny-model"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(gte, list(map(str, arguments)))


def run_with_cache(cache: Path, endpoint: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # huggingface_hub reads its environment when it is imported, hence a process of its own.
    environment = hub_environment(endpoint, cache)
    command = [sys.executable, "-m", "gte_sdk.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_a_model_of_the_hub_is_downloaded_listed_and_works_without_a_network(tmp_path: Path) -> None:
    source = write_tiny_model(tmp_path / "source")
    cache = tmp_path / "cache"
    with serve_hub(NAME, source) as (endpoint, _):
        listed = json.loads(run_with_cache(cache, endpoint, "models", "--json").stdout)
        assert [model["name"] for model in listed] == bundled_models()
        result = run_with_cache(cache, endpoint, "download", NAME, "--revision", "main")
        assert result.returncode == 0, result.stderr
        folder = Path(result.stdout.strip())
        assert folder.name == COMMIT
        assert f"gte: {NAME}: fp32; pin it with --revision {COMMIT}" in result.stderr
        described = json.loads(run_with_cache(cache, endpoint, "download", NAME, "--revision", COMMIT, "--json").stdout)
        assert (described["revision"], described["dim"], described["path"]) == (COMMIT, DIM, str(folder))
        missing = run_with_cache(cache, endpoint, "download", NAME, "--variant", "int8")
        assert missing.returncode == 1
        assert "has none of ['onnx/model_quantized.onnx'" in missing.stderr
    nowhere = "http://127.0.0.1:9"
    listed = json.loads(run_with_cache(cache, nowhere, "models", "--json").stdout)
    assert listed[-1] == {**described, "bytes": listed[-1]["bytes"]}
    *_, last = run_with_cache(cache, nowhere, "models").stdout.splitlines()
    assert last.split()[:4] == [NAME, "cache", str(DIM), "32"]
    np.testing.assert_array_equal(Embedder(folder).embed("red"), Embedder(source).embed("red"))
    gone = run_with_cache(cache, nowhere, "download", "somebody/else")
    assert gone.returncode == 1
    assert "model='somebody/else' revision=None could not be fetched" in gone.stderr


def test_models_describe_the_one_in_the_package() -> None:
    (mini,) = [model for model in json.loads(run("models", "--json").stdout) if model["name"] == "gte-mini"]
    embedder = Embedder()
    assert (mini["from"], mini["dim"], mini["max_tokens"]) == ("bundled", embedder.dim, embedder.max_tokens)
    assert mini["variants"] == ["int8"]
    assert Path(mini["path"]).is_dir()
    heading, *lines = (line.split() for line in run("models").stdout.splitlines())
    assert heading == ["NAME", "FROM", "DIM", "TOKENS", "MB", "VARIANTS"]
    assert ["gte-mini", "bundled"] in [line[:2] for line in lines]


def test_download_wants_a_name_of_the_hub() -> None:
    result = run("download", "gte-mini")
    assert result.exit_code == 2
    assert "'gte-mini' is not a Hub name" in result.stderr


def test_the_doctor_reports_what_this_process_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    result = run("doctor", "--json")
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    assert report["versions"]["gte-sdk"] == __version__
    assert report["versions"]["numpy"] == np.__version__
    assert report["versions"]["python"] == platform.python_version()
    assert report["threads"]["used"] == available_threads() == 1
    assert report["threads"]["decided_by"] == "OMP_NUM_THREADS"
    assert report["onnxruntime"]["conflict"] is None
    assert "CPUExecutionProvider" in report["onnxruntime"]["providers_offered"]
    assert report["cpu"]["search_kernels"][0] == "scalar"
    assert report["models"]["bundled"] == bundled_models()
    test = report["self_test"]
    assert (test["passed"], test["unit_length"], test["device"]) == (True, True, "cpu")
    assert test["fingerprint"] == Embedder().fingerprint
    assert test["largest_difference_alone_and_in_a_batch"] == 0
    assert test["instruction_set"] == report["cpu"]["encoder_kernels"][-1]
    assert re.fullmatch(rf"held: \d+ texts, made by {ARITHMETIC}", test["golden_vectors"])
    text = run("doctor").stdout
    assert f"gte-sdk {__version__}" in " ".join(text.split())
    assert "passed yes" in " ".join(text.split())


def test_the_doctor_counts_the_nodes_of_a_graph_by_provider(tmp_path: Path) -> None:
    test = json.loads(run("doctor", "--model", write_tiny_model(tmp_path), "--threads", "1", "--json").stdout)[
        "self_test"
    ]
    assert list(test["nodes_by_provider"]) == ["CPUExecutionProvider"]
    assert (test["engine"], test["instruction_set"], test["threads"]) == ("onnxruntime", None, 1)
    assert test["golden_vectors"] == "none in this model directory"


def test_the_doctor_finds_a_model_that_is_ill(tmp_path: Path) -> None:
    ill = write_tiny_model(tmp_path / "ill", table=TABLE * np.float32(np.nan))
    result = run("doctor", "--model", ill, "--json")
    assert result.exit_code == 1
    assert "gives vectors with NaN or infinity" in json.loads(result.stdout)["self_test"]["error"]
    result = run("doctor", "--model", "no such")
    assert result.exit_code == 1
    assert "'no such' is neither a bundled model" in result.stdout


def test_bench_counts_what_it_embedded(tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "model")
    result = run("bench", "--model", model, "--seconds", "0.1", "--json")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.stdout)
    assert (figures["engine"], figures["variant"], figures["device"]) == ("onnxruntime", "fp32", "cpu")
    workloads = {workload["workload"]: workload for workload in figures["workloads"]}
    assert list(workloads) == ["one short query", "short texts", "paragraphs", "mixed documents"]
    for workload in workloads.values():
        assert workload["texts"] >= 1
        assert 0 < workload["p50_ms"] <= workload["p99_ms"]
    # One token a word and two around them: 3 to 10 words, and cut at the 32 tokens that this model reads.
    query, long = workloads["one short query"], workloads["paragraphs"]
    assert 5 <= query["tokens_per_second"] / query["texts_per_second"] <= 12.5
    assert long["tokens_per_second"] / long["texts_per_second"] == pytest.approx(32, rel=0.01)
    assert "texts/s" in run("bench", "--model", model, "--seconds", "0.1").stdout
