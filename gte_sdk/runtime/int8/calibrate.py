"""The texts that come with the package, and how large the channels of an encoder's activations get on them.

texts.json has three lists, written for this project: "golden" are the texts of golden vectors, of eight different
kinds; "calibration" and "parity" are prose, questions, documentation, code and machine output in many languages, which
share no text.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gte_sdk.runtime.native.engine import NativeModel, pack_texts

# Each batch has texts of all kinds, so that one unusual text decides an eighth of a channel's size.
_BATCHES = 8


def bundled_texts(purpose: str) -> list[str]:
    """purpose: "golden", "calibration" or "parity"."""
    texts: dict[str, list[str]] = json.loads(Path(__file__).with_name("texts.json").read_text(encoding="utf-8"))
    return texts[purpose]


def measure_maxima(
    model: NativeModel, ids: Sequence[Sequence[int]], progress: Callable[[float], None]
) -> list[list[NDArray[np.float32]]]:
    """For each layer the size of each channel of its four linear layers' inputs: the mean of the batches' maxima.

    model: a float32 encoder. ids: token ids of the calibration texts. progress: takes the share that is done.
    """
    batches = [ids[first::_BATCHES] for first in range(min(_BATCHES, len(ids)))]
    maxima = []
    for done, batch in enumerate(batches, 1):
        maxima.append(model.encoder.channel_maxima(*pack_texts(batch), model.threads, model.instruction_set))
        progress(done / len(batches))
    return [[_mean(of_linear) for of_linear in zip(*of_layer, strict=True)] for of_layer in zip(*maxima, strict=True)]


def _mean(batches: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    mean_K: NDArray[np.float32] = np.add.reduce(np.stack(batches).astype(np.float64), axis=0) / len(batches)
    return mean_K.astype(np.float32)
