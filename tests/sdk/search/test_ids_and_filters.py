"""Ids and filters of an index: what is taken, in which form, and what is refused instead of guessed."""

from typing import Any

import numpy as np
import pyarrow
import pytest

from gte_sdk import Index, InputError, InputTypeError, top_k_cosine

VECTORS = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)


def index_of(ids: Any = None) -> Index:
    index = Index(8)
    index.add(VECTORS, ids)
    return index


@pytest.mark.parametrize(
    "where",
    [
        np.arange(100) % 3 == 1,
        range(1, 100, 3),
        set(range(1, 100, 3)) | {1000, -4},
        np.arange(1, 100, 3),
        lambda id: id % 3 == 1,
    ],
)
def test_every_kind_of_filter_gives_the_search_over_the_rows_that_pass(where: Any) -> None:
    scores, ids = index_of().search(VECTORS[:9], 5, where=where)
    expected = top_k_cosine(VECTORS[:9], VECTORS[1::3], 5)
    assert ids.tolist() == (expected.indices * 3 + 1).tolist()
    assert scores.tobytes() == expected.scores.tobytes()


@pytest.mark.parametrize("mask", [[0, 0, 1, 1], [1, 1], (0,) * 100, np.arange(100) % 2, np.array([0, 1, 1], np.uint8)])
def test_a_mask_of_numbers_is_not_taken_for_ids(mask: Any) -> None:
    with pytest.raises(InputTypeError, match="looks like a mask of 0 and 1; give booleans"):
        index_of().search(VECTORS[0], 2, where=mask)
    assert sorted(index_of().search(VECTORS[0], 5, where=[1, 0]).ids[0].tolist()) == [0, 1]
    assert index_of().search(VECTORS[0], 5, where=[2, 2]).ids[0].tolist() == [2]


def test_filters_after_removal_see_the_rows_that_are_left() -> None:
    index = index_of()
    index.remove([0, 1, 2])
    mask = np.zeros(97, np.bool_)
    mask[:2] = True
    assert sorted(index.search(VECTORS[0], 10, where=mask).ids[0].tolist()) == [3, 4]
    assert sorted(index.search(VECTORS[0], 10, where=[2, 3, 4]).ids[0].tolist()) == [3, 4]
    assert sorted(index.search(VECTORS[0], 10, where=lambda id: id < 5).ids[0].tolist()) == [3, 4]
    with pytest.raises(InputError, match=r"where has shape \(100,\); a mask of this index has shape \(97,\)"):
        index.search(VECTORS[0], 1, where=np.ones(100, np.bool_))


def test_what_a_search_gives_can_be_handed_back() -> None:
    """Ids from a search are numpy.int64 one by one; ids from a data frame may be numpy.str_."""
    index = index_of()
    found = index.search(VECTORS[:3], 1).ids[:, 0]
    assert found[0] in index
    index.remove([found[0]])
    index.add(VECTORS[:1], [found[0]])
    assert index.search(VECTORS[:3], 1, where=list(found)).ids[:, 0].tolist() == [0, 1, 2]
    names = Index(8)
    names.add(VECTORS[:3], np.array(["a", "b", "c"]))
    names.remove([np.str_("b")])
    assert all(type(id) is str for id, _ in names)


NOT_IDS: list[Any] = [
    "wxyz", b"wx", {0: 1}, 7, 2.5, None, [[0, 1]], np.array([[0, 1]]), np.array(7), [0.5], [None], [True, 0], [b"a"],
    [{}], [np.float32(1)], [np.array(1.5)], [np.True_, 3],
]  # fmt: skip


@pytest.mark.parametrize("ids", [*NOT_IDS, [True, False]], ids=repr)
def test_what_are_no_ids_is_refused_everywhere(ids: Any) -> None:
    for index in (index_of(), index_of(ids=[f"{number:03}" for number in range(100)])):
        before = [(id, vector.tobytes()) for id, vector in index]
        with pytest.raises(InputTypeError):
            index.remove(ids)
        if ids is not None:
            with pytest.raises(InputTypeError):
                index.add(VECTORS[:4], ids)
            with pytest.raises(InputError):  # two booleans are a mask of another shape
                index.search(VECTORS[0], 3, where=ids)
        assert [(id, vector.tobytes()) for id, vector in index] == before


def test_an_order_is_needed_for_ids_of_vectors_only() -> None:
    index = index_of()
    with pytest.raises(InputTypeError, match="ids is a set, which has no order"):
        index.add(VECTORS[:2], {1, 2})  # type: ignore[arg-type]
    index.remove({1, 2})  # type: ignore[arg-type]
    assert len(index) == 98


class Column:
    """A column of a data frame, as pandas and Polars give it: it iterates, and has a shape."""

    def __init__(self, values: list[Any]) -> None:
        self.values, self.shape = values, (len(values),)

    def __iter__(self) -> Any:
        return iter(self.values)


EVEN = [id % 2 == 0 for id in range(100)]


@pytest.mark.parametrize(
    "where",
    [
        np.array(EVEN),
        EVEN,
        tuple(EVEN),
        np.array(EVEN, object),
        Column(EVEN),
        Column(list(np.array(EVEN))),
        pyarrow.array(EVEN),
        pyarrow.chunked_array([EVEN[:50], EVEN[50:]]),
    ],
    ids=["bool array", "list", "tuple", "object array", "column", "column of numpy booleans", "Arrow", "Arrow chunks"],
)
def test_booleans_of_any_library_are_a_mask(where: Any) -> None:
    for index in (index_of(), index_of(ids=[str(number) for number in range(100)])):
        ids = index.search(VECTORS[0], 100, where=where).ids[0]
        assert sorted(map(int, ids)) == list(range(0, 100, 2))
        with pytest.raises(InputError, match=r"where has shape \(99,\)"):
            index.search(VECTORS[0], 5, where=EVEN[1:])


@pytest.mark.parametrize(
    "where",
    [
        pyarrow.array([None, *EVEN[1:]]),
        {True, False},
        [True, *range(99)],
        [0, *EVEN[1:]],
        [*EVEN[1:], None],
        ["5"],
        [3, "5"],
    ],
    ids=["Arrow with a null", "set", "True among ids", "0 among booleans", "None", "str for int", "int and str"],
)
def test_a_filter_of_which_one_cannot_tell_what_was_meant_is_refused(where: Any) -> None:
    with pytest.raises(InputTypeError, match="where"):
        index_of().search(VECTORS[0], 3, where=where)


NO_PATHS: list[Any] = [None, 5, b"x.index", ["x.index"], "a\0b", "x.index\0"]


@pytest.mark.parametrize("path", NO_PATHS, ids=repr)
def test_what_names_no_file_is_refused(path: Any) -> None:
    for call in (Index.open, index_of().save):
        with pytest.raises(InputError, match="path="):
            call(path)


@pytest.mark.parametrize("name", ["vectors", "queries", "documents"])
def test_masked_values_are_not_taken_for_numbers(name: str) -> None:
    masked: Any = np.ma.masked_array(VECTORS, VECTORS > 2)
    whole: Any = np.ma.masked_array(VECTORS, np.zeros(VECTORS.shape, np.bool_))
    calls: dict[str, Any] = {
        "vectors": lambda rows: Index(8).add(rows),
        "queries": lambda rows: index_of().search(rows, 1),
        "documents": lambda rows: top_k_cosine(VECTORS, rows, 1),
    }
    with pytest.raises(
        InputTypeError, match=rf"{name} is a masked array with {int((VECTORS > 2).sum())} masked values"
    ):
        calls[name](masked)
    calls[name](whole)
