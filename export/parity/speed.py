"""Measures how fast each engine is on the exporting machine, and describes the machine, for parity.json."""

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gte_sdk.threads import available_threads

_INSTRUCTION_SETS = ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "amx_int8", "asimd", "asimddp", "i8mm", "sve")


def measure_speed(
    run: Callable[[Sequence[Sequence[int]]], NDArray[np.float32]],
    ids: Sequence[Sequence[int]],
    sample: Sequence[Sequence[int]],
) -> dict[str, float]:
    """The median of 21 runs of the text of median length in `ids`, and the best of five passes over `sample`."""
    median = sorted(ids, key=len)[len(ids) // 2]
    single = sorted(_seconds(lambda: run([median])) for _ in range(21))
    passes = [_seconds(lambda: run(sample)) for _ in range(5)]
    return {
        "milliseconds_one_text": round(single[len(single) // 2] * 1000, 3),
        "tokens_one_text": len(median),
        "tokens_per_second": round(sum(map(len, sample)) / min(passes)),
    }


def describe_machine() -> dict[str, Any]:
    """Processor and the instruction sets that matter to integer arithmetic, as far as the system tells (Linux)."""
    file = Path("/proc/cpuinfo")
    fields = [line.partition(":") for line in file.read_text().splitlines()] if file.is_file() else []
    values = {name.strip(): value.strip() for name, _, value in reversed(fields)}
    flags = values.get("flags", values.get("Features", "")).split()
    return {
        "architecture": platform.machine(),
        "threads": available_threads(),
        "processor": values.get("model name", platform.processor()),
        "instruction_sets": [name for name in _INSTRUCTION_SETS if name in flags],
    }


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
