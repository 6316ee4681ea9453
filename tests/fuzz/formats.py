"""Every format that is read from others, as a function that damages a valid file and reads it to its end.

What reads damage may find nothing wrong, or raise an error of ours. Anything else is a fault: see run_cases.py.
"""

import gzip
import io
import json
import shutil
import sqlite3
import struct
from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import pyarrow
from model_formats import (
    Case,
    bundle,
    golden_vectors,
    graph_bytes,
    graph_tensors,
    int8_weights,
    json_file_of_a_model,
    safetensors,
    weights_of_a_model,
)
from mutations import mutate_bytes, mutate_json
from pyarrow import parquet
from tokenizer_parts import tokenizer_parts

from gte_sdk import Index, _kernels
from gte_sdk.passages.searching import PassageSearch
from gte_sdk.passages.splitting import Passage
from gte_sdk.passages.store import FilePassages, FileState, PassageStore, Settings
from gte_sdk.search import index_file
from gte_sdk.tables.journal import VectorJournal
from gte_sdk.tables.text_batches import ON_NULL, TableOptions
from gte_sdk.tables.text_tables import Format, open_text_table

DIM = 16


def vector_index(folder: Path) -> Case:
    """Damage with wrong checksums, and with right ones, which a reader has to see through."""
    path = folder / "vectors.index"
    numbers = np.random.default_rng(0).normal(size=(303, DIM)).astype(np.float32)
    queries_QD, rows_ND = numbers[:3], numbers[3:]
    files = []
    for row_type in ("float32", "float16", "int8", "binary"):
        for ids in (None, [f"id {number} é" for number in range(len(rows_ND))]):
            index = Index(DIM, row_type, fingerprint="sha256:x", keep_floats=row_type in ("int8", "binary"))
            index.add(rows_ND, ids=ids, fingerprint="sha256:x")
            index.save(path)
            files.append(path.read_bytes())

    def case(random: Random) -> None:
        damaged = bytearray(random.choice(files))
        kind = random.randrange(4)
        if kind == 0:
            damaged = bytearray(mutate_bytes(random, bytes(damaged)))
        elif kind == 1:
            for _ in range(random.choice([1, 1, 2])):
                _damage_header(random, damaged)
            _correct_checksums(damaged)
        else:
            for _ in range(random.choice([1, 2, 5, 50])):
                damaged[random.randrange(index_file.HEADER_BYTES, len(damaged))] = random.randrange(256)
            if kind == 2:
                _correct_checksums(damaged)
        path.write_bytes(damaged)
        index = Index.open(path, mmap=random.random() < 0.5, verify=kind != 3)
        queries = queries_QD if index.dim == DIM else np.ones((3, index.dim), np.float32)
        for k in (1, 5, 10**6):
            scores, ids = index.search(queries, k)
            assert scores.shape == ids.shape
            assert len(ids) == 3
            assert (np.abs(scores) <= 1.001).all()
        list(index)
        index.remove([id for id, _ in index][:2])
        index.save(folder / "again.index")

    return case


def _damage_header(random: Random, data: bytearray) -> None:
    offset = random.choice([8, 12, 16, 20, 24, 32, 40, 48, 52, *range(56, 168, 8)])
    code = "<I" if offset in (8, 12, 16, 20, 48, 52) else "<Q"
    most = 2 ** (8 * struct.calcsize(code))
    (value,) = struct.unpack_from(code, data, offset)
    others = [0, 1, value + 1, value - 1, value + 64, value * 2, most - 1, most // 2, random.randrange(most), 4096]
    struct.pack_into(code, data, offset, random.choice(others) % most)


def _correct_checksums(data: bytearray) -> None:
    """Those of the blocks, where the header still says where they are, and that of the header."""
    (start,) = struct.unpack_from("<Q", data, 56 + 6 * 16)
    if index_file.HEADER_BYTES <= start <= len(data) - 8:
        blocks = bytes(data[index_file.HEADER_BYTES : start])
        if blocks:
            struct.pack_into("<I", data, start, int(_kernels.block_checksums(blocks, 1 << 20)[0]))
        struct.pack_into("<I", data, start + 4, int(_kernels.block_checksums(bytes(data[start : start + 4]), 4)[0]))
    header = bytes(data[: index_file.HEADER_BYTES - 4])
    struct.pack_into("<I", data, index_file.HEADER_BYTES - 4, int(_kernels.block_checksums(header, len(header))[0]))


# Statements that SQLite takes, for a schema of our own: what they write does not belong there.
_STATEMENTS = [
    "UPDATE meta SET value = {} WHERE key = 'model'", "UPDATE meta SET value = {} WHERE key = 'dim'",
    "UPDATE meta SET value = {} WHERE key = 'fingerprint'", "UPDATE meta SET value = {} WHERE key = 'paths'",
    "UPDATE meta SET value = {} WHERE key = 'globs'", "UPDATE meta SET value = {} WHERE key = 'complete'",
    "UPDATE vectors SET vector = {} WHERE id = 3", "UPDATE passages SET line = {} WHERE id = 5",
    "UPDATE passages SET text = {} WHERE id = 5", "UPDATE passages SET context = {} WHERE id = 5",
    "UPDATE passages SET vector_id = {} WHERE id = 5", "UPDATE passages SET file_id = {} WHERE id = 5",
    "UPDATE files SET path = {} WHERE id = 2", "UPDATE files SET stamp = {} WHERE id = 2",
    "UPDATE files SET sha256 = {} WHERE id = 2", "DELETE FROM vectors WHERE id = 3", "DELETE FROM meta",
    "DROP TABLE passages", "CREATE TABLE more (x)", "ALTER TABLE files ADD COLUMN y DEFAULT {}",
    "ALTER TABLE passages RENAME TO was; CREATE VIEW passages AS WITH RECURSIVE r(n) AS "
    "(VALUES(1) UNION ALL SELECT n + 1 FROM r) SELECT n AS id, 1 AS file_id, n AS line, '' AS context, '' AS text, "
    "1 AS vector_id FROM r",
    "CREATE TRIGGER t AFTER INSERT ON files BEGIN DELETE FROM vectors; END",
    "UPDATE words_data SET block = {}", "UPDATE words_data SET block = {} WHERE id = 1",
    "UPDATE words_data SET block = {} WHERE id > 10", "UPDATE words_docsize SET sz = {}",
    "UPDATE words_config SET v = {}", "DELETE FROM words_docsize", "DROP TABLE words", "UPDATE words_idx SET pgno = {}",
]  # fmt: skip
_SQL_VALUES = [
    "NULL", "0", "-1", "9223372036854775807", "1.5", "x'ff00'", "''", "'null'", "'[]'", "'{}'", "'1e400'", "'-3'",
    "'999999999999'", "'\"a\"'", "char(0, 27, 91, 51, 49, 109)", "zeroblob(64)", f"x'{'7f80ffff' * 16}'",
    "cast(x'ff' as text)", "'[' || replace(hex(zeroblob(5000)), '00', '[')",
]  # fmt: skip


def passage_index(folder: Path) -> Case:
    path = folder / "notes.index"
    vectors = np.random.default_rng(0).normal(size=(96, DIM)).astype(np.float32)
    with PassageStore(path, Settings("gte-nano", "sha256:x", DIM, ("/notes",))) as store:
        for number in range(12):
            passages = [Passage(f"{number}.md", line, "Top", f"text {number} {line}") for line in range(1, 9)]
            hashes = [bytes([number, line]) * 16 for line in range(8)]
            store.add_vectors(hashes, vectors[number * 8 :][:8])
            state = FileState("stamp", b"x" * 32)
            store.put_files([FilePassages(f"/notes/{number}.md", state, [*zip(passages, hashes, strict=True)])])
    whole = path.read_bytes()

    def case(random: Random) -> None:
        for left in folder.glob("notes.index?*"):
            left.unlink()
        path.write_bytes(mutate_bytes(random, whole) if random.random() < 0.5 else whole)
        if path.read_bytes() == whole:
            connection = sqlite3.connect(path)
            connection.executescript("PRAGMA writable_schema = 1; PRAGMA ignore_check_constraints = 1")
            for _ in range(random.choice([1, 1, 2])):
                try:
                    connection.executescript(random.choice(_STATEMENTS).format(random.choice(_SQL_VALUES)))
                except sqlite3.Error:
                    connection.rollback()
            connection.commit()
            connection.close()
        with PassageStore(path) as store:
            store.check_fingerprint("sha256:x")
            for found in PassageSearch(store).find(np.ones(DIM, np.float32), 5, "text 3 Top"):
                assert isinstance(found.passage.text, str)
            store.files()
            store.counts()
            store.embedded_texts([b"a"])

    return case


def journal(folder: Path) -> Case:
    output = folder / "vectors.npy"
    identity = {"fingerprint": "x", "kind": "plain"}
    batches = [["a", "b"], ["c"], ["d", "e", "f"]]
    with VectorJournal(output, DIM, identity, resume=False, overwrite=False) as kept:
        for texts in batches:
            kept.append(texts, np.ones((len(texts), DIM), np.float32), False)
        path = kept.path
    whole = path.read_bytes()
    header = json.loads(whole.partition(b"\n")[0])

    def case(random: Random) -> None:
        if random.random() < 0.5:
            path.write_bytes(mutate_bytes(random, whole))
        else:
            changed = json.dumps(mutate_json(random, header)).encode("utf-8", "surrogatepass")
            path.write_bytes(changed + b"\n" + whole.partition(b"\n")[2])
        with VectorJournal(output, DIM, identity, resume=True, overwrite=False) as resumed:
            for texts in batches:
                if resumed.take(texts) is None:
                    resumed.append(texts, np.ones((len(texts), DIM), np.float32), False)

    return case


JSON_LINES = b'{"text": "a", "n": 1}\n{"text": "b \\u00e9", "doc": {"text": "c"}, "n": [1.5, null]}\n'
LINES = "eins\nzwei\n\ndrei é\n".encode()


def parquet_file() -> bytes:
    rows = [{"text": f"text {number}", "n": number, "doc": {"text": None}} for number in range(40)]
    file = io.BytesIO()
    parquet.write_table(pyarrow.Table.from_pylist(rows), file, row_group_size=16)
    return file.getvalue()


def table(file_format: Format, whole: bytes) -> Case:
    is_text = file_format != "parquet"
    columns = [None, "text", "n", "doc.text"] if file_format != "lines" else [None]
    encodings = ["utf-8", "utf-8", "utf-16", "cp1252"] if is_text else ["utf-8"]

    def case(random: Random) -> None:
        on_null = random.choice([None, *ON_NULL])
        options = TableOptions(random.choice(columns), None, random.choice(encodings), on_null)
        data = io.BytesIO(mutate_bytes(random, whole * random.choice([1, 1, 50] if is_text else [1])))
        for batch in open_text_table(data, "table", file_format, options).batches:
            assert all(isinstance(text, str) for text in batch.texts)

    return case


FORMATS: dict[str, Callable[[Path], Case]] = {
    "gte.json": lambda folder: json_file_of_a_model(folder, "gte.json", own=True),
    "config.json": lambda folder: json_file_of_a_model(folder, "config.json", own=False),
    "tokenizer.json": lambda folder: json_file_of_a_model(folder, "tokenizer.json", own=False),
    "tokenizer parts": tokenizer_parts,
    "modules.json": lambda folder: json_file_of_a_model(
        folder, "modules.json", own=False,
        content=[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
                 {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}],
    ),
    "pooling": lambda folder: json_file_of_a_model(
        folder, "1_Pooling/config.json", own=False, content={"pooling_mode_mean_tokens": True, "include_prompt": True}
    ),
    "prompts": lambda folder: json_file_of_a_model(
        folder, "config_sentence_transformers.json", own=False,
        content={"prompts": {"query": "q: ", "document": ""}, "matryoshka_dims": [64, 32], "default_prompt_name": None},
    ),
    "length": lambda folder: json_file_of_a_model(
        folder, "sentence_bert_config.json", own=False, content={"max_seq_length": 32, "do_lower_case": False}
    ),
    "golden.json": golden_vectors,
    "safetensors": safetensors,
    "weights of a model": weights_of_a_model,
    "int8 weights": int8_weights,
    "graph bytes": graph_bytes,
    "graph tensors": graph_tensors,
    "bundle": bundle,
    "vector index": vector_index,
    "passage index": passage_index,
    "journal": journal,
    "lines": lambda _: table("lines", LINES),
    "gzip": lambda _: table("lines", gzip.compress(LINES * 20)),
    "zstd": lambda _: table("lines", pyarrow.compress(LINES * 20, "zstd", asbytes=True)),
    "jsonl": lambda _: table("jsonl", JSON_LINES),
    "json": lambda _: table("json", b'[{"text": "a", "n": 1}, {"text": "b", "n": {"m": [true, null, -1e3]}}]'),
    "csv": lambda _: table("csv", b'text,n\r\na,1\r\n"b, ""c""\nd",2\r\n,3\r\n'),
    "tsv": lambda _: table("tsv", b'text\tn\na\t1\n"b\t2\n'),
    "parquet": lambda _: table("parquet", parquet_file()),
}  # fmt: skip


def prepare(name: str, folder: Path) -> Case:
    """The case function of a format, with an empty folder of its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return FORMATS[name](folder)
