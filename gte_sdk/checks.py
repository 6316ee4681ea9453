"""What callers may pass as texts, vectors and counts: checked once, at the border, with the position and the remedy."""

from collections.abc import Iterable, Mapping, Sequence
from math import inf
from operator import index
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_sdk.errors import InputError, InputTypeError

# More than any machine has: what a caller asks for beyond it changes nothing.
_MOST_THREADS = 4096


def check_count(name: str, value: int, least: int = 1, most: int | None = None) -> int:
    """`value` as an int if it is one in [least, most], numpy's integers included."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise InputTypeError(f"{name}={value!r} is a {type(value).__name__}; give an int")
    value = index(value)
    if value < least or (most is not None and value > most):
        raise InputError(f"{name}={value}; it must be at least {least}" + (f" and at most {most}" if most else ""))
    return value


def check_threads(threads: int) -> int:
    """`threads` as an int of at least 1, and no more than any machine has."""
    return min(check_count("threads", threads), _MOST_THREADS)


def check_path(name: str, path: Any) -> Path:
    """`path` if it can name a file. Raises InputTypeError for what is no path, InputError for a NUL in it."""
    if not isinstance(path, str | PathLike) or not isinstance(fspath(path), str):
        raise InputTypeError(f"{name}={path!r:.80} is a {type(path).__name__}; give a str or a Path")
    if "\0" in fspath(path):
        raise InputError(f"{name}={path!r:.80} has a NUL, which no file name can hold")
    return Path(path)


def check_seconds(name: str, value: float | None) -> float | None:
    """`value` as a float if it is a finite number above 0, or None."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputTypeError(f"{name}={value!r} is a {type(value).__name__}; give seconds as a number, or None")
    if not 0 < value < inf:
        raise InputError(f"{name}={value}; it must be above 0 and finite, or None")
    return float(value)


def check_iterable(texts: Iterable[str]) -> Iterable[str]:
    """The texts if they are an ordered collection: the rows of the vectors have its order. Raises InputTypeError.

    A table is refused too, because it iterates over the names of its columns.
    """
    kind = type(texts).__name__
    if (dimensions := getattr(texts, "ndim", 1)) != 1 or hasattr(texts, "columns"):
        raise InputTypeError(
            f"texts is a {kind}" + (f" of {dimensions} dimensions" if dimensions != 1 else "") + "; give one column of "
            "texts, such as frame['text']"
        )
    if isinstance(texts, bytes | bytearray | Mapping | set | frozenset) or not isinstance(texts, Iterable):
        raise InputTypeError(f"texts is a {kind}: {texts!r:.80}; give a str or a list of str")
    # Arrow's arrays iterate over values of their own.
    return texts.to_pylist() if hasattr(texts, "to_pylist") else texts


def check_collection(texts: Iterable[str]) -> Iterable[str]:
    """As `check_iterable`, and refuses a single str, whose items would be its characters."""
    if isinstance(texts, str):
        raise InputTypeError(f"texts is a str, {texts[:40]!r}; give a list of str, such as [text]")
    return check_iterable(texts)


def check_list(texts: Iterable[str]) -> list[str]:
    """The texts of a collection as a list, if each of them is a str. Raises InputTypeError."""
    return check_texts(list(check_collection(texts)), 0)


def check_texts(texts: list[str], first_index: int) -> list[str]:
    """`texts` if each of them is a str; the message names the first that is not, counted from first_index."""
    for number, text in enumerate(texts, first_index):
        if not isinstance(text, str):
            raise InputTypeError(f"text {number} is a {type(text).__name__}: {text!r:.80}; give a str")
    return texts


def check_out(out: Any, rows: int, dim: int, dtype: Any) -> NDArray[Any]:
    """`out` if vectors can be written into it: (rows, dim) of the type, an array or a memmap."""
    wanted = np.dtype(dtype)
    if not isinstance(out, np.ndarray):
        raise InputTypeError(f"out is a {type(out).__name__}; give a numpy array or memmap of {wanted}")
    if out.dtype != wanted:
        raise InputTypeError(f"out has dtype {out.dtype}; give {wanted}")
    if out.shape != (rows, dim):
        raise InputError(f"out has shape {out.shape}; {rows} texts need ({rows}, {dim})")
    if not out.flags.writeable:
        raise InputError("out is read-only; open a memmap with mode 'r+' or 'w+'")
    return out


def check_token_ids(ids: Sequence[Sequence[int]], max_tokens: int, vocabulary_size: int) -> Sequence[Sequence[int]]:
    """`ids` if each text has 1 to max_tokens tokens, all of them whole numbers in the vocabulary."""
    for number, row in enumerate(ids):
        if isinstance(row, str | bytes | Mapping) or not hasattr(row, "__len__") or getattr(row, "ndim", 1) != 1:
            raise InputTypeError(f"text {number} is a {type(row).__name__}: {row!r:.80}; give a list of token ids")
        for kind in set(map(type, row)) - {int}:
            if not issubclass(kind, np.integer):
                raise InputTypeError(f"text {number} has a {kind.__name__} among its token ids; give int")
        if not 1 <= len(row) <= max_tokens:
            raise InputError(f"text {number} has {len(row)} tokens; the model reads 1 to {max_tokens}")
        if min(row) < 0 or max(row) >= vocabulary_size:
            raise InputError(
                f"text {number} has ids from {min(row)} to {max(row)}; the model has {vocabulary_size} tokens"
            )
    return ids


def checked_queries(queries: NDArray[np.float32]) -> NDArray[np.float32]:
    """Returns finite queries (q, d), from (q, d) or (d,). A copy, so that no other thread can change them."""
    if isinstance(queries, np.ndarray) and queries.ndim == 1:
        queries = queries[np.newaxis, :]
    queries_QD = np.array(checked_matrix("queries", queries), order="C")
    check_finite("queries", queries_QD)
    return queries_QD


def checked_matrix(name: str, value: Any) -> NDArray[np.float32]:
    """Returns a float32 matrix with at least one column. Copies it only if the values of a row are not adjacent."""
    if not isinstance(value, np.ndarray):
        raise InputTypeError(f"{name} is a {type(value).__name__}; give a numpy array of float32")
    if masked := int(np.sum(getattr(value, "mask", False))):
        raise InputTypeError(f"{name} is a masked array with {masked} masked values; fill these first")
    if value.dtype != np.float32:
        raise InputTypeError(f"{name} has dtype {value.dtype}; convert it with {name}.astype(np.float32)")
    if value.ndim != 2 or value.shape[1] == 0:
        raise InputError(f"{name} has shape {value.shape}; give a matrix with one vector in each row")
    plain: NDArray[np.float32] = np.asarray(value)  # of a subclass, such as a matrix, the numbers
    if not plain.flags.aligned or (plain.shape[1] > 1 and plain.strides[1] != plain.itemsize):
        return np.ascontiguousarray(plain)
    return plain


def check_finite(name: str, vectors_ND: NDArray[np.float32]) -> None:
    """Raises InputError with the first row that holds NaN or an infinity."""
    finite_N = np.isfinite(vectors_ND).all(axis=1)
    if not finite_N.all():
        raise not_finite(name, int(np.argmin(finite_N)))


def not_finite(name: str, row: int) -> InputError:
    return InputError(f"{name} row {row} holds NaN or an infinity; remove or replace that row")
