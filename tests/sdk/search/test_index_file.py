"""The index file: its bytes, its round trips, and every damage an error. Faults while saving: test_index_faults.py."""

import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gte_sdk import Index, ModelFormatError, ModelMismatchError, _kernels
from gte_sdk.errors import IndexFormatError
from gte_sdk.search.index_file import IndexContent, write_index

VECTORS = np.random.default_rng(0).standard_normal((300, 24)).astype(np.float32)
QUERIES = VECTORS[:5] + np.float32(0.1)
KINDS: list[dict[str, Any]] = [
    {"dtype": "float32"},
    {"dtype": "float16"},
    {"dtype": "int8"},
    {"dtype": "int8", "keep_floats": True},
    {"dtype": "binary"},
    {"dtype": "binary", "keep_floats": True},
]
FUZZ_COUNT = int(os.environ.get("GTE_INDEX_FUZZ", "1500"))


def saved(path: Path, texts: bool = False, **options: Any) -> Index:
    index = Index(24, **options)
    index.add(VECTORS, [f"ключ {i}" for i in range(300)] if texts else np.arange(300) * 7 - 50)
    index.save(path)
    return index


def same_answers(one: Index, other: Index) -> bool:
    result, expected = one.search(QUERIES, 7), other.search(QUERIES, 7)
    return result.scores.tobytes() == expected.scores.tobytes() and result.ids.tolist() == expected.ids.tolist()


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("texts", [False, True], ids=["int ids", "str ids"])
@pytest.mark.parametrize("mmap", [False, True], ids=["read", "mmap"])
def test_an_opened_index_is_the_saved_one(tmp_path: Path, options: dict[str, Any], texts: bool, mmap: bool) -> None:
    index = saved(tmp_path / "a.gte", texts, fingerprint="model-a", **options)
    opened = Index.open(tmp_path / "a.gte", mmap=mmap)
    assert (opened.dim, opened.dtype, opened.fingerprint, len(opened)) == (24, options["dtype"], "model-a", 300)
    assert same_answers(opened, index)
    for (id, vector), (other_id, other_vector) in zip(index, opened, strict=True):
        assert id == other_id
        assert vector.tobytes() == other_vector.tobytes()
    if "keep_floats" in options:
        assert opened.search(QUERIES, 3, rescore=50).ids.tolist() == index.search(QUERIES, 3, rescore=50).ids.tolist()
    # What was opened may grow, shrink and be saved over itself.
    new_id = opened.add(VECTORS[:1], ["new"] if texts else None)[0]
    assert new_id == ("new" if texts else 299 * 7 - 50 + 1)
    gone = "ключ 3" if texts else -29
    opened.remove([new_id, gone])
    index.remove([gone])
    opened.save(tmp_path / "a.gte")
    assert same_answers(Index.open(tmp_path / "a.gte"), index)
    assert len(Index.open(tmp_path / "a.gte")) == 299
    assert [p.name for p in tmp_path.iterdir()] == ["a.gte"]


def test_an_empty_index_survives_the_file(tmp_path: Path) -> None:
    for number, options in enumerate(KINDS):
        Index(9, **options).save(tmp_path / f"{number}")
        opened = Index.open(tmp_path / f"{number}")
        assert len(opened) == 0
        assert opened.search(np.ones(9, np.float32), 3).ids.shape == (1, 0)
        opened.add(np.ones((2, 9), np.float32), ["a", "b"])
        assert opened.search(np.ones(9, np.float32), 3).ids.tolist() == [["a", "b"]]


def test_removed_rows_are_not_saved_and_ids_are_not_reused(tmp_path: Path) -> None:
    index = Index(24)
    index.add(VECTORS[:10])
    index.remove([9, 2])
    index.save(tmp_path / "a")
    opened = Index.open(tmp_path / "a")
    assert [id for id, _ in opened] == [0, 1, 3, 4, 5, 6, 7, 8]
    assert opened.add(VECTORS[:1]) == [10]
    assert 9 not in opened


def test_the_file_is_what_the_format_says_byte_by_byte(tmp_path: Path) -> None:
    """docs/index-format.md, written once more by hand."""
    index = Index(3, "int8", fingerprint="fp")
    index.add(np.array([[127, -1, 0], [0, 0, 0]], np.float32), ["é", "b"])
    index.save(tmp_path / "a")

    def padded(data: bytes) -> bytes:
        return data.ljust(-(-len(data) // 64) * 64, b"\0")

    scale = struct.pack("<f", np.float32(1 / np.sqrt(127.0**2 + 1)))
    parts = [
        bytes([127, 255, 0, 0, 0, 0, 0, 0]),
        scale + bytes(4),
        struct.pack("<3Q", 0, 2, 3),
        "éb".encode(),
        b"",
        b"fp",
    ]
    places, body = [], b""
    for part in parts:
        body = padded(body)
        places.append((4096 + len(body), len(part)))
        body += part
    table = struct.pack("<I", int(_kernels.block_checksums(body, 1 << 20)[0]))
    table += struct.pack("<I", int(_kernels.block_checksums(table, 4)[0]))
    places.append((4096 + len(body), 8))
    header = struct.pack(
        "<8sIIIIQqQII", b"\x89GTEIX\r\n", 1, 3, 2, 1, 2, 0, 4096 + len(body) + 8, 1 << 20, 7
    ) + b"".join(struct.pack("<QQ", *place) for place in places)
    header = header.ljust(4092, b"\0")
    header += struct.pack("<I", int(_kernels.block_checksums(header, 4092)[0]))
    assert (tmp_path / "a").read_bytes() == header + body + table


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda b: b"", "0 bytes are less than a header"),
        (lambda b: b[:4095], "4095 bytes are less than a header"),
        (lambda b: b[:-1], "bytes, but the header says .*truncated"),
        (lambda b: b + b"\0", "bytes, but the header says .*appended"),
        (lambda b: b"PK" + b[2:], "foreign"),
        (lambda b: b[:8] + struct.pack("<I", 2) + b[12:], "format version 2; this gte-sdk reads 1: upgrade it"),
        (lambda b: b[:12] + b"\xff" + b[13:], "the header is damaged"),
        (lambda b: b[:5000] + bytes([b[5000] ^ 1]) + b[5001:], r"block 0 \(bytes 4096 to 3\d+\) is damaged"),
        (lambda b: b[:-1] + bytes([b[-1] ^ 128]), "table of checksums is damaged"),
    ],
)
@pytest.mark.parametrize("mmap", [False, True])
def test_each_damage_is_named(tmp_path: Path, change: Any, message: str, mmap: bool) -> None:
    path = tmp_path / "a.gte"
    saved(path)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(ModelFormatError, match=f"a.gte: .*{message}"):
        Index.open(path, mmap=mmap)


def test_the_damaged_block_is_counted_from_the_start_of_the_data(tmp_path: Path) -> None:
    index = Index(1024)
    index.add(np.random.default_rng(0).standard_normal((1000, 1024)).astype(np.float32))
    index.save(tmp_path / "a")
    data = bytearray((tmp_path / "a").read_bytes())
    for block in (2, 3):
        data[4096 + block * (1 << 20) + 17] ^= 4
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(ModelFormatError, match=r"block 2 \(bytes 2101248 to 3149824\) is damaged, and 1 more of 4"):
        Index.open(tmp_path / "a")
    assert len(Index.open(tmp_path / "a", verify=False)) == 1000


def test_a_wrong_header_with_a_right_checksum_is_refused_too(tmp_path: Path) -> None:
    """No field of the header can send the reader out of the file, or make it believe in rows that are not there."""
    path = tmp_path / "a"
    saved(path, texts=True, dtype="int8", keep_floats=True, fingerprint="x")
    original = path.read_bytes()
    refused = 0
    generator = np.random.default_rng(1)
    for start in range(8, 168, 4):
        for value in (0, 1, 5, 0x7FFFFFFF, 0xFFFFFFFF, int(generator.integers(2**32))):
            header = bytearray(original[:4092])
            struct.pack_into("<I", header, start, value)
            if bytes(header) == original[:4092]:
                continue
            changed = bytes(header) + struct.pack("<I", int(_kernels.block_checksums(bytes(header), 4092)[0]))
            path.write_bytes(changed + original[4096:])
            if start == 32 or (start == 36 and value <= 0x7FFFFFFF):
                # The next automatic id is any number above the ids, which are texts here.
                assert len(Index.open(path)) == 300
                continue
            with pytest.raises(ModelFormatError):
                Index.open(path)
            refused += 1
    assert refused > 180


def content(dtype: str, **changes: Any) -> IndexContent:
    """A correct index of ids 0, 1 and 2, but for what is changed."""
    rows, scales = _kernels.encode(VECTORS[:3], dtype)
    whole = IndexContent(
        dim=24, dtype=dtype, fingerprint=None, next_id=3, rows=rows, floats=None, ids=np.arange(3),
        scales=scales if dtype in ("int8", "binary") else np.empty(0, np.float32),
    )  # fmt: skip
    return whole._replace(**changes)


@pytest.mark.parametrize("mmap", [False, True])
@pytest.mark.parametrize(
    ("dtype", "changes", "message"),
    [
        *(
            (dtype, {"scales": np.array([0.1, scale, 1], np.float32)}, r"the scale of row 1 is .*, not in 0 to 1")
            for dtype in ("int8", "binary")
            for scale in (-1e30, -1e-9, 1.0001, 5, 1e30, np.inf, -np.inf, np.nan)
        ),
        ("int8", {"rows": np.full((3, 24), 0x80, np.uint8)}, "row 0 holds the code -128"),
        ("float32", {"ids": np.array([1, 2, 1])}, "an id is there twice"),
        ("float32", {"ids": np.array(["a", "b", "a"], object)}, "an id is there twice"),
        ("float32", {"next_id": 2}, "the next id is 2, not above the highest, 2"),
        ("float32", {"next_id": -5, "ids": np.array([-7, -6, -3])}, "the next id is -5"),
        ("float32", {"next_id": -1, "ids": np.array(["a", "b", "c"], object)}, "the next id is -1"),
    ],
)
def test_a_file_with_right_checksums_that_lies_is_refused(
    tmp_path: Path, dtype: str, changes: dict[str, Any], message: str, mmap: bool
) -> None:
    path = tmp_path / "a"
    write_index(path, content(dtype), None)
    assert Index.open(path, mmap=mmap).search(VECTORS[:1], 1).ids.tolist() == [[0]]
    write_index(path, content(dtype, **changes), None)
    with pytest.raises(IndexFormatError, match=f"{path}: {message}"):
        Index.open(path, mmap=mmap)


@pytest.mark.skipif(os.name != "posix", reason="as POSIX has them")
def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(IndexFormatError, match="is not a regular file"):
            Index.open(path)


@pytest.mark.parametrize("texts", [False, True])
def test_flipped_and_truncated_files_are_refused(tmp_path: Path, texts: bool) -> None:
    path = tmp_path / "a"
    saved(path, texts, dtype="binary", fingerprint="model-a")
    original = path.read_bytes()
    generator = np.random.default_rng(2)
    for turn in range(FUZZ_COUNT):
        damaged = bytearray(original)
        if turn % 3 == 2:
            del damaged[int(generator.integers(len(original))) :]
        else:
            for _ in range(int(generator.integers(1, 4))):
                damaged[int(generator.integers(len(original)))] ^= int(generator.integers(1, 256))
        if bytes(damaged) == original:
            continue
        path.write_bytes(damaged)
        with pytest.raises(ModelFormatError):
            Index.open(path, mmap=bool(turn % 2))


def test_a_file_of_another_model_is_refused_with_both_names(tmp_path: Path) -> None:
    saved(tmp_path / "a", fingerprint="model-a")
    with pytest.raises(ModelMismatchError, match=r"model-b.*model-a"):
        Index.open(tmp_path / "a", fingerprint="model-b")
    assert len(Index.open(tmp_path / "a", fingerprint="model-a")) == 300


def test_an_open_map_keeps_its_answers_while_the_file_is_replaced(tmp_path: Path) -> None:
    index = saved(tmp_path / "a")
    opened = Index.open(tmp_path / "a")
    other = Index(24)
    other.add(VECTORS * -1)
    other.save(tmp_path / "a")
    assert same_answers(opened, index)
    assert same_answers(Index.open(tmp_path / "a"), other)


def test_a_missing_file_is_python_own_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        Index.open(tmp_path / "absent")
