"""Several teachers as one, in a student's own space: targets for a distillation of kind "vectors".

    python -m training.runs.teaching.joint_teacher vectors/mpnet vectors/start --student vectors/start --output DIR

All arguments are directories that teacher_vectors.py writes. The cosine of two texts becomes the mean of what the
teachers say, as far as the student has dimensions for it: the teachers' rows, side by side, keep their main components
(PCA without centring). An orthogonal Procrustes rotation (Schoenemann 1966) then turns these to where the student's own
vectors lie. So a run begins near its targets, and the numbers that a Matryoshka loss has put first stay the first.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.pairs import PairsError
from training.data.text_vectors import TEXTS_A_SHARD, TextVectors, open_text_vectors, write_keyed_vectors
from training.runs.command_line import run_command


class JointTeacher:
    """What several teachers say of the texts that they and the student have vectors of."""

    def __init__(self, teachers: Sequence[TextVectors], student: TextVectors) -> None:
        """Raises PairsError if no text has vectors everywhere, or all teachers have fewer dimensions than the student.

        Memory holds square matrices of the teachers' dimensions, and blocks of vectors.
        """
        self._teachers = teachers
        self._student = student
        total = sum(teacher.dim for teacher in teachers)
        names = ", ".join(str(of.directory) for of in (*teachers, student))
        if total < student.dim:
            raise PairsError(f"{names}: the teachers have {total} dimensions in all, the student {student.dim}")
        has_all = np.all([of.find_keys(student.keys) >= 0 for of in teachers], axis=0)
        self._keys_N2 = student.keys[has_all]
        if not len(self._keys_N2):
            raise PairsError(f"{names}: no text has vectors in all of them")
        second_moment_TT, cross_TD = np.zeros((total, total)), np.zeros((total, student.dim))
        for _, joined_BT, student_BD in self._blocks():
            second_moment_TT += joined_BT.T @ joined_BT
            cross_TD += joined_BT.T @ student_BD
        energies_T, components_TT = np.linalg.eigh(second_moment_TT)
        main_TD = components_TT[:, ::-1][:, : student.dim]
        self.kept_share = float(energies_T[::-1][: student.dim].sum() / energies_T.sum())
        """Of the squared lengths of the joined vectors: what the student's dimensions can hold of them."""
        left_DD, _, right_DD = np.linalg.svd(main_TD.T @ cross_TD)
        self._map_TD = main_TD @ left_DD @ right_DD

    def __len__(self) -> int:
        return len(self._keys_N2)

    def vectors(self) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.float32]]]:
        """Blocks of the texts' hashes, (b, 2), and their unit targets, (b, d)."""
        for keys_B2, joined_BT, _ in self._blocks():
            targets_BD = joined_BT @ self._map_TD
            yield keys_B2, (targets_BD / np.linalg.norm(targets_BD, axis=1, keepdims=True)).astype(np.float32)

    def _blocks(self) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.float64], NDArray[np.float32]]]:
        """Hashes, the teachers' vectors side by side (b, t), scaled to mean cosines, and the student's (b, d)."""
        scale = len(self._teachers) ** -0.5
        for start in range(0, len(self), TEXTS_A_SHARD):
            keys_B2 = self._keys_N2[start : start + TEXTS_A_SHARD]
            parts = [of.read(of.find_keys(keys_B2)) for of in (*self._teachers, self._student)]
            yield keys_B2, np.concatenate(parts[:-1], axis=1, dtype=np.float64) * scale, parts[-1]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m training.runs.teaching.joint_teacher",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("teachers", nargs="+", type=Path, help="directories of text vectors")
    parser.add_argument("--student", type=Path, required=True, help="vectors of the encoder that is to be trained")
    parser.add_argument("--output", type=Path, required=True, help="directory for the targets")
    options = parser.parse_args(arguments)
    if options.output.exists():
        parser.error(f"{options.output} exists; choose another --output")
    teachers, student = [open_text_vectors(path) for path in options.teachers], open_text_vectors(options.student)
    joint = JointTeacher(teachers, student)
    write_keyed_vectors(
        options.output,
        joint.vectors(),
        teacher=" + ".join(of.teacher for of in teachers),
        max_tokens=min(of.max_tokens for of in teachers),
        dim=student.dim,
    )
    print(f"{options.output}: {len(joint)} texts; {joint.kept_share:.1%} of the teachers' vectors fit in {student.dim}")


if __name__ == "__main__":
    run_command(main)
