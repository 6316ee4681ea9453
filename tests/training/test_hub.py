"""Sources and encoders by their Hub name, against a stand-in Hub in a process that knows no other."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from gte_sdk.runtime.tokens import load_tokenizer
from training.data.pairs import Pair, write_pairs
from training.encoders.embed import embed_texts
from training.encoders.encoder import Encoder
from training.encoders.encoder_files import write_encoder

from ..sdk.model_files.hub_programs import hub_environment
from ..sdk.model_files.hub_stand_in import COMMIT, serve_hub

ROOT = Path(__file__).parents[2]
SOURCES = """
import json, sys
from training.data.pairs import PairsError
from training.data.sources import describe_sources, open_sources
for patterns in json.loads(sys.argv[1]):
    try:
        sources = open_sources(patterns, exclude=["*__test"])
        answer = [[source.name, source.category, len(source), source[0].document] for source in sources]
    except PairsError as error:
        answer = str(error)
    print(json.dumps(answer))
"""
ENCODERS = """
import json, sys
from gte_sdk.errors import HubError
from gte_sdk.runtime.tokens import load_tokenizer
from training.encoders.embed import embed_texts
from training.encoders.encoder_files import load_encoder, resolve_directory
directory = resolve_directory(sys.argv[1])
encoder = load_encoder(sys.argv[1])
vectors = embed_texts(encoder, load_tokenizer(directory / "tokenizer.json"), ["open a file"], 16)
print(json.dumps([str(directory), vectors.tolist()]))
try:
    load_encoder("nobody/nothing")
except HubError as error:
    print(json.dumps(str(error)))
"""


def answers(program: str, argument: str, endpoint: str, home: Path) -> list[Any]:
    environment = {**hub_environment(endpoint, home / "hub-cache"), "HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program, argument]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_file_of_a_data_set_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "served" / "deep").mkdir(parents=True)
    for number, name in enumerate(("train", "deep/train", "deep/more", "test")):
        write_pairs(
            tmp_path / "served" / f"{name}.parquet",
            [Pair(f"question {row}", f"document {number}") for row in range(number + 1)],
        )
    hub = "hub:somebody/pairs"
    asked = [
        [f"{hub}/train.parquet", f"{hub}@{COMMIT}/deep/more.parquet", f"{hub}/test.parquet"],
        [f"{hub}/train.parquet", f"{hub}/deep/train.parquet"],
        [f"{hub}/gone.parquet"],
        ["hub:somebody/else/train.parquet"],
        ["hub:somebody/pairs"],
    ]
    with serve_hub("datasets/somebody/pairs", tmp_path / "served") as (endpoint, requests):
        opened, same_name, no_file, no_data_set, no_name = answers(SOURCES, json.dumps(asked), endpoint, tmp_path)
    assert opened == [["pairs__train", "pairs", 1, "document 0"], ["pairs__more", "pairs", 3, "document 2"]]
    assert any(f"/datasets/somebody/pairs/resolve/{COMMIT}/deep/more.parquet" in request for request in requests)
    assert "two sources have the name pairs__train" in same_name
    assert no_file == (
        "source 'hub:somebody/pairs/gone.parquet' names a file that the repository does not have; "
        f"{endpoint}/datasets/somebody/pairs/tree/main lists its files"
    )
    assert no_data_set == (
        f"source 'hub:somebody/else/train.parquet' is not on {endpoint}, or is private; check the name, or set "
        "HF_TOKEN if it is private"
    )
    assert "must have the form hub:OWNER/NAME/FILE" in no_name


def test_an_encoder_by_name_is_the_one_that_is_served(
    tiny_encoder: Encoder, tokenizer_directory: Path, tmp_path: Path
) -> None:
    write_encoder(tiny_encoder, tokenizer_directory, tmp_path / "served")
    (tmp_path / "served" / "pytorch_model.bin").write_bytes(b"not wanted")
    with serve_hub("somebody/tiny", tmp_path / "served") as (endpoint, requests):
        (directory, vectors), unknown = answers(ENCODERS, "somebody/tiny", endpoint, tmp_path)
    tokenizer = load_tokenizer(tokenizer_directory / "tokenizer.json")
    np.testing.assert_allclose(vectors, embed_texts(tiny_encoder, tokenizer, ["open a file"], 16), atol=1e-6)
    assert directory.endswith(COMMIT)
    assert not any("pytorch_model.bin" in request for request in requests)
    assert unknown == (
        f"encoder nobody/nothing is not on {endpoint}, or is private; check the name, or set HF_TOKEN if it is private"
    )
