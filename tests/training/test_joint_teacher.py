"""Several teachers in the space of one student: mean cosines, where the student's vectors lie."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from training.data.pairs import PairsError
from training.data.text_vectors import open_text_vectors, write_text_vectors
from training.runs.teaching import joint_teacher
from training.runs.teaching.joint_teacher import JointTeacher

TEXTS = [f"text {number}" for number in range(5000)]  # more than one block
FACTS = np.random.default_rng(0).standard_normal((len(TEXTS), 4))  # what there is to know of each text


def unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    lengths: NDArray[np.float64] = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / lengths


def turned(rows: NDArray[np.float64], dim: int, seed: int) -> NDArray[np.float64]:
    """The rows in `dim` dimensions, with the same dot products."""
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((dim, rows.shape[1])))
    moved: NDArray[np.float64] = rows @ rotation.T
    return moved


def write(directory: Path, vectors: NDArray[np.float64], texts: Sequence[str] = TEXTS, max_tokens: int = 8) -> Path:
    rows = {text: vectors[int(text.split()[1])] for text in texts}
    made = write_text_vectors(
        directory,
        texts,
        lambda asked: np.stack([rows[text] for text in asked]).astype(np.float32),
        teacher=directory.name,
        max_tokens=max_tokens,
    )
    assert list(made)[-1] == len(texts)
    return directory


def test_cosines_are_the_mean_of_the_teachers_and_lie_where_the_student_is(tmp_path: Path) -> None:
    first, second = unit(FACTS[:, :3]), unit(FACTS[:, 2:])
    student = unit(np.concatenate([first, second], axis=1))  # turned neither way, with room for all that they know
    one, two = write(tmp_path / "one", turned(first, 7, 1)), write(tmp_path / "two", turned(second, 6, 2), max_tokens=5)
    own = write(tmp_path / "own", student)
    joint_teacher.main([str(one), str(two), "--student", str(own), "--output", str(tmp_path / "joint")])

    joint = open_text_vectors(tmp_path / "joint")
    assert (len(joint), joint.dim, joint.max_tokens, joint.teacher) == (5000, 5, 5, "one + two")
    asked = TEXTS[::50]
    targets = joint.read(joint.find(asked))
    expected = (first[::50] @ first[::50].T + second[::50] @ second[::50].T) / 2
    np.testing.assert_allclose(targets @ targets.T, expected, atol=2e-3)  # float16 on disk
    np.testing.assert_allclose(targets, student[::50], atol=2e-3)


def test_what_does_not_fit_is_the_least_and_said(tmp_path: Path) -> None:
    rows = unit(FACTS * [8, 4, 0.1, 0.1])
    one, own = write(tmp_path / "one", rows), write(tmp_path / "own", turned(unit(FACTS[:, :2]), 2, 3))
    joint = JointTeacher([open_text_vectors(one)], open_text_vectors(own))
    kept = (rows[:, :2] ** 2).sum() / (rows**2).sum()
    assert joint.kept_share == pytest.approx(kept, abs=1e-3)
    assert 0.9 < joint.kept_share < 1
    keys, targets = next(joint.vectors())
    assert keys.shape == (4096, 2)
    np.testing.assert_allclose(np.linalg.norm(targets, axis=1), 1, atol=1e-6)


def test_only_texts_that_all_have_are_joined(tmp_path: Path) -> None:
    rows = unit(FACTS)
    one, own = write(tmp_path / "one", rows, TEXTS[:30]), write(tmp_path / "own", rows, TEXTS[20:50])
    other = write(tmp_path / "other", rows, TEXTS[40:50])
    assert len(JointTeacher([open_text_vectors(one)], open_text_vectors(own))) == 10
    with pytest.raises(PairsError, match="no text has vectors in all"):
        JointTeacher([open_text_vectors(one), open_text_vectors(other)], open_text_vectors(own))
    small = write(tmp_path / "small", unit(FACTS[:, :2]), TEXTS[:30])
    with pytest.raises(PairsError, match="2 dimensions in all, the student 4"):
        JointTeacher([open_text_vectors(small)], open_text_vectors(own))
    with pytest.raises(SystemExit):
        joint_teacher.main([str(one), "--student", str(own), "--output", str(own)])
