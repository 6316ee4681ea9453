"""Index in memory: add, update, remove, filters, iteration, and what it refuses."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from threading import Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gte_sdk import Index, InputError, InputTypeError, ModelMismatchError, top_k_cosine
from gte_sdk.search.index_rows import appended

VECTORS = np.random.default_rng(0).standard_normal((100, 8)).astype(np.float32)


def index_of(vectors: Any = VECTORS, ids: Any = None, **arguments: Any) -> Index:
    index = Index(vectors.shape[1], **arguments)
    index.add(vectors, ids)
    return index


def test_search_equals_top_k_cosine_and_gives_ids() -> None:
    index = index_of(ids=np.arange(1000, 1100))
    scores, ids = index.search(VECTORS[:7], 5)
    expected = top_k_cosine(VECTORS[:7], VECTORS, 5)
    assert scores.tobytes() == expected.scores.tobytes()
    assert ids.dtype == np.int64
    assert ids.tolist() == (expected.indices + 1000).tolist()
    assert index.search(VECTORS[3], 1).ids.tolist() == [[1003]]


def test_string_ids() -> None:
    names = [f"document {i}" for i in range(100)]
    index = index_of(ids=names)
    assert index.search(VECTORS[41], 1).ids.tolist() == [["document 41"]]
    assert "document 99" in index
    assert "document 100" not in index


def test_ids_default_to_the_next_integers() -> None:
    index = Index(8)
    assert index.add(VECTORS[:3]) == [0, 1, 2]
    assert index.add(VECTORS[3:4], [40]) == [40]
    index.remove([40])
    assert index.add(VECTORS[4:6]) == [41, 42]
    assert [id for id, _ in index] == [0, 1, 2, 41, 42]


def test_iteration_gives_ids_and_the_vectors_that_were_added() -> None:
    index = index_of()
    index.remove([5])
    pairs = list(index)
    assert [id for id, _ in pairs] == [i for i in range(100) if i != 5]
    assert np.array([vector for _, vector in pairs]).tobytes() == np.delete(VECTORS, 5, axis=0).tobytes()


def test_vectors_by_their_ids() -> None:
    index = index_of(ids=np.arange(1000, 1100))
    index.remove([1003])
    assert index.get(1007).tobytes() == index.get(np.int64(1007)).tobytes() == VECTORS[7].tobytes()
    assert index.get([1099, 1000, 1099]).tobytes() == VECTORS[[99, 0, 99]].tobytes()
    assert index.get([]).shape == (0, 8)
    with pytest.raises(InputError, match="id 1003 is not in the index"):
        index.get([1000, 1003])
    with pytest.raises(InputTypeError, match="ids is a set, which has no order"):
        index.get({1000})  # type: ignore[arg-type]
    assert index_of(ids=[f"{row}" for row in range(100)]).get("41").tobytes() == VECTORS[41].tobytes()


def test_a_search_finds_ten_by_itself() -> None:
    assert index_of().search(VECTORS[0]).ids.shape == (1, 10)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_pickles_and_copies_are_indexes_of_their_own(dtype: str) -> None:
    index = index_of(dtype=dtype, fingerprint="sha256:a", keep_floats=dtype == "int8")
    index.remove([5])
    expected = index.search(VECTORS[:9], 50)
    for again in (pickle.loads(pickle.dumps(index)), copy.copy(index), copy.deepcopy(index)):
        assert repr(again) == repr(index) == f"Index(8, '{dtype}', 'sha256:a', rows=99)"
        found = again.search(VECTORS[:9], 50)
        assert found.scores.tobytes() == expected.scores.tobytes()
        assert found.ids.tobytes() == expected.ids.tobytes()
        assert again.add(-VECTORS[:2], fingerprint="sha256:a") == [100, 101]
        with pytest.raises(ModelMismatchError):
            again.add(VECTORS, fingerprint="sha256:b")
        # What one adds is not in the other.
        assert index.add(VECTORS[:1], fingerprint="sha256:a") == [100]
        assert again.get(100).tobytes() == (-VECTORS[0]).tobytes()
        index = pickle.loads(pickle.dumps(index_of(dtype=dtype, fingerprint="sha256:a", keep_floats=dtype == "int8")))
        index.remove([5])


def test_adding_an_id_again_replaces_its_vector() -> None:
    index = index_of()
    index.add(VECTORS[:2] * -1, [7, 200])
    assert len(index) == 101
    assert index.search(VECTORS[0] * -1, 2).ids[0, 0] == 7
    assert 7 not in index.search(VECTORS[7], 1).ids


def test_removed_rows_are_not_found() -> None:
    index = index_of()
    index.remove([3, 99])
    assert len(index) == 98
    assert index.search(VECTORS[3], 98).ids.shape == (1, 98)
    assert not np.isin(index.search(VECTORS, 98).ids, [3, 99]).any()
    with pytest.raises(InputError, match="id 3 is not in the index"):
        index.remove([4, 3])
    assert 4 in index


def test_ties_go_to_the_row_that_was_added_first_not_to_the_lower_id() -> None:
    index = Index(2)
    index.add(np.array([[1, 1], [1, 1], [0, 1], [1, 1]], np.float32), [30, 10, 5, 20])
    assert index.search(np.array([1, 1], np.float32), 4).ids.tolist() == [[30, 10, 20, 5]]


def test_fewer_rows_than_k_give_fewer_columns() -> None:
    assert Index(8).search(VECTORS[:2], 5).ids.shape == (2, 0)
    assert index_of(VECTORS[:3]).search(VECTORS[:2], 5).scores.shape == (2, 3)
    assert index_of().search(VECTORS[:2], 5, where=[1, 2]).ids.shape == (2, 2)
    assert index_of().search(VECTORS[:2], 5, where=[]).ids.shape == (2, 0)
    assert index_of().search(VECTORS[:2], 0).ids.shape == (2, 0)
    assert index_of().search(VECTORS[:0], 3).ids.shape == (0, 3)


@pytest.mark.parametrize(
    ("vectors", "ids", "error", "message"),
    [
        (VECTORS[:, :7], None, InputError, "vectors have dimension 7, the index 8"),
        (VECTORS.astype(np.float64), None, InputTypeError, "vectors has dtype float64"),
        (np.full((2, 8), np.nan, np.float32), None, InputError, "vectors row 0 holds NaN"),
        (VECTORS[:2], [1], InputError, "1 ids for 2 vectors"),
        (VECTORS[:2], [1, 1], InputError, r"ids\[1\] is 1 for the second time"),
        (VECTORS[:2], [1, "a"], InputTypeError, r"ids\[1\] is 'a'"),
        (VECTORS[:2], [1, True], InputTypeError, r"ids\[1\] is True"),
        (VECTORS[:2], [1.0, 2.0], InputTypeError, r"ids\[0\] is 1.0"),
        (VECTORS[:2], ["a", "b"], InputTypeError, "id 'a' is of another type than the int ids"),
        (VECTORS[:2], [1, 2**63], InputError, r"ids\[1\] is 9223372036854775808; an int id is from -2\^63"),
    ],
)
def test_a_refused_add_names_the_reason_and_changes_nothing(vectors: Any, ids: Any, error: type, message: str) -> None:
    index = index_of()
    with pytest.raises(error, match=message):
        index.add(vectors, ids)
    assert len(index) == 100
    assert index.search(VECTORS[:3], 1).ids.tolist() == [[0], [1], [2]]


def test_the_highest_id_leaves_none_for_the_next_and_the_index_usable(tmp_path: Any) -> None:
    index = index_of()
    index.add(VECTORS[:1], [2**63 - 2])
    with pytest.raises(InputError, match=r"the next id of this index is 9223372036854775807.*give ids"):
        index.add(VECTORS[:1])
    with pytest.raises(InputError, match=r"ids\[0\] is 9223372036854775807"):
        index.add(VECTORS[:1], [2**63 - 1])
    index.save(tmp_path / "index")
    assert [id for id, _ in Index.open(tmp_path / "index")] == [*range(100), 2**63 - 2]


@pytest.mark.parametrize("after_removal", [False, True])
def test_an_addition_that_runs_out_of_memory_leaves_the_index_as_it_was(
    monkeypatch: pytest.MonkeyPatch, after_removal: bool
) -> None:
    index = index_of()
    if after_removal:
        index.remove([0])
    before = [id for id, _ in index]

    def run_out(*arguments: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("gte_sdk.search.index.appended", run_out)
        for ids in ([500, 5], None):
            with pytest.raises(MemoryError):
                index.add(VECTORS[:2], ids)
        patch.setattr("gte_sdk.search.index.without_rows", run_out)
        with pytest.raises(MemoryError):
            index.remove([5])
    assert [id for id, _ in index] == before
    assert 5 in index
    assert 500 not in index
    assert index.search(VECTORS[5], 1, where=[5, 500]).ids.tolist() == [[5]]
    assert index.add(VECTORS[:1] * -1) == [100]
    assert index.search(VECTORS[0] * -1, 1, where=[100]).ids.tolist() == [[100]]
    index.remove([5, 100])
    assert len(index) == len(before) - 1


def test_a_second_models_first_vectors_are_refused_also_while_the_first_ones_are_being_added(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The other thread is let go at the one moment at which both could pass the check."""
    index = Index(8)
    refused: list[ModelMismatchError] = []

    def add_other() -> None:
        try:
            index.add(VECTORS[:1], [2], fingerprint="model-b")
        except ModelMismatchError as error:
            refused.append(error)

    other = Thread(target=add_other)

    def start_other(*arguments: Any) -> Any:
        other.start()
        monkeypatch.undo()
        return appended(*arguments)

    monkeypatch.setattr("gte_sdk.search.index.appended", start_other)
    index.add(VECTORS[:1], [1], fingerprint="model-a")
    other.join()
    assert len(refused) == 1
    assert [id for id, _ in index] == [1]


def test_strings_need_ids_for_the_next_rows_too() -> None:
    index = index_of(VECTORS[:1], ["a"])
    with pytest.raises(InputTypeError, match="the ids of this index are str; give ids"):
        index.add(VECTORS[1:2])
    with pytest.raises(InputTypeError, match="id 1 is of another type than the str ids"):
        index.add(VECTORS[1:2], [1])


def test_vectors_of_another_model_are_refused_with_both_names() -> None:
    index = Index(8, fingerprint="model-a")
    index.add(VECTORS, fingerprint="model-a")
    with pytest.raises(ModelMismatchError, match=r"vectors come from model model-b.*vectors of model-a"):
        index.add(VECTORS, fingerprint="model-b")
    with pytest.raises(ModelMismatchError, match=r"queries come from model model-b.*vectors of model-a"):
        index.search(VECTORS[0], 1, fingerprint="model-b")
    assert index.search(VECTORS[0], 1, fingerprint="model-a").ids.tolist() == [[0]]


def test_an_empty_index_takes_the_fingerprint_of_its_first_vectors() -> None:
    index = Index(8)
    index.add(VECTORS[:1], fingerprint="model-a")
    assert index.fingerprint == "model-a"
    unnamed = index_of()
    with pytest.raises(ModelMismatchError, match="vectors of an unnamed model"):
        unnamed.add(VECTORS[:1], [500], fingerprint="model-a")


def test_dim_and_dtype_are_checked() -> None:
    with pytest.raises(InputError, match="dim=0"):
        Index(0)
    with pytest.raises(InputError, match="dtype='float64'"):
        Index(8, "float64")


@pytest.mark.parametrize("value", [True, 2.5, "3", None, np.float32(2), [3]], ids=repr)
def test_a_count_is_an_int(value: Any) -> None:
    index = index_of(dtype="int8", keep_floats=True)
    with pytest.raises(InputTypeError, match="dim="):
        Index(value)
    with pytest.raises(InputTypeError, match="k="):
        index.search(VECTORS[0], value)
    with pytest.raises(InputTypeError, match="k="):
        top_k_cosine(VECTORS, VECTORS, value)
    if value is not None:
        with pytest.raises(InputTypeError, match="rescore="):
            index.search(VECTORS[0], 3, rescore=value)
        with pytest.raises(InputTypeError, match="threads="):
            index.search(VECTORS[0], 3, threads=value)
        with pytest.raises(InputTypeError, match="threads="):
            top_k_cosine(VECTORS, VECTORS, 3, threads=value)


def test_counts_of_any_size_and_of_numpy_are_taken() -> None:
    index = index_of()
    expected = index.search(VECTORS, 100)
    for k, threads in ((2**70, 2**70), (np.int8(100), np.uint64(1))):
        assert index.search(VECTORS, k, threads=threads).ids.tolist() == expected.ids.tolist()


@pytest.mark.parametrize("fingerprint", [5, b"a", "", "\ud800", "a\nb", ["a"]], ids=repr)
def test_a_fingerprint_is_a_text_that_a_file_can_hold(fingerprint: Any) -> None:
    index = Index(8)
    with pytest.raises(InputError, match="fingerprint is"):
        Index(8, fingerprint=fingerprint)
    with pytest.raises(InputError, match="fingerprint is"):
        index.add(VECTORS[:1], fingerprint=fingerprint)
    assert len(index) == 0


def test_searches_among_additions_see_whole_states() -> None:
    """32 threads: searches of rows that are there from the start find them, whatever the others add and remove."""
    vectors = np.random.default_rng(1).standard_normal((600, 32)).astype(np.float32)
    index = index_of(vectors[:200])

    def work(worker: int) -> None:
        first = 200 + 10 * worker
        for step in range(10):
            row = first + step
            index.add(vectors[row : row + 1], [row])
            # Alternate directions keep the others' rows out of the best place.
            ids = index.search(vectors[step * 20 : step * 20 + 20], 1, threads=2).ids
            assert ids[:, 0].tolist() == list(range(step * 20, step * 20 + 20))
            assert index.search(vectors[row], 1).ids.tolist() == [[row]]
            if step % 2:
                index.remove([row])

    with ThreadPoolExecutor(32) as pool:
        for done in [pool.submit(work, worker) for worker in range(32)]:
            done.result()
    expected = [id for id in range(520) if id < 200 or id % 2 == 0]
    assert sorted(id for id, _ in index) == expected
    scores, ids = index.search(vectors[:50], 10)
    alone = top_k_cosine(vectors[:50], vectors[expected], 10)
    assert scores.tobytes() == alone.scores.tobytes()
    assert ids.tolist() == np.array(expected)[alone.indices].tolist()


class IndexAgainstDict(RuleBasedStateMachine):
    """Any sequence of changes leaves what a dict under the same changes holds."""

    def __init__(self) -> None:
        super().__init__()
        self.index = Index(8)
        self.rows: dict[int, int] = {}

    @rule(rows=st.lists(st.integers(0, 99), max_size=6), first_id=st.integers(0, 12))
    def add(self, rows: list[int], first_id: int) -> None:
        ids = list(range(first_id, first_id + len(rows)))
        self.index.add(VECTORS[rows], ids)
        for id, row in zip(ids, rows, strict=True):
            self.rows.pop(id, None)
            self.rows[id] = row

    @rule(position=st.integers(0, 20))
    def remove(self, position: int) -> None:
        if position < len(self.rows):
            id = list(self.rows)[position]
            self.index.remove([id])
            del self.rows[id]

    @invariant()
    def same_content(self) -> None:
        assert len(self.index) == len(self.rows)
        assert [id for id, _ in self.index] == list(self.rows)
        expected = top_k_cosine(VECTORS[:2], VECTORS[list(self.rows.values())], len(self.rows))
        scores, ids = self.index.search(VECTORS[:2], 50)
        assert scores.tobytes() == expected.scores.tobytes()
        assert ids.tolist() == [[list(self.rows)[i] for i in row] for row in expected.indices]


TestIndexAgainstDict = IndexAgainstDict.TestCase
TestIndexAgainstDict.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)
