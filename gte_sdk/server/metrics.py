"""What the server counts, and its text for Prometheus. Only the event loop counts, so nothing here needs a lock."""

import os
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


class Histogram:
    """Counts of values by upper bounds, as Prometheus has them."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def count(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def lines(self, name: str, labels: str = "") -> list[str]:
        total = 0
        lines = []
        for bound, count in zip((*self._bounds, "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{{labels}{"," if labels else ""}le="{bound}"}} {total}')
        suffix = f"{{{labels}}}" if labels else ""
        return [*lines, f"{name}_sum{suffix} {self._sum!r}", f"{name}_count{suffix} {total}"]


class Metrics:
    """The counters of one server. The attributes without underscore are gauges and counters that others move."""

    def __init__(self, models: Mapping[str, str], version: str) -> None:
        """`models` has the fingerprint of each model by its name."""
        self.started = time.time()
        self.requests_in_progress = 0
        self.held_bytes = 0
        self.truncated_texts = 0
        self._information = [
            f'model="{_escaped(model)}",fingerprint="{_escaped(fingerprint)}",version="{version}"'
            for model, fingerprint in models.items()
        ]
        self._texts_of = dict.fromkeys(models, 0)
        self._tokens_of = dict.fromkeys(models, 0)
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, Histogram] = {}
        self._batch_texts = Histogram(BATCH_SIZES)
        self._texts = 0
        self._tokens = 0

    def count_request(self, route: str, status: int, seconds: float) -> None:
        self._requests[route, status] += 1
        self._seconds.setdefault(route, Histogram(SECONDS)).count(seconds)

    def count_batch(self, model: str, texts: int, tokens: int) -> None:
        self._texts_of[model] += texts
        self._tokens_of[model] += tokens
        self._batch_texts.count(texts)
        self._texts += texts
        self._tokens += tokens

    def text(self, queued_texts: int) -> str:
        """The exposition format, version 0.0.4."""
        lines = [
            *_family(
                "gte_info", "gauge", "A model that is served.", *(f"gte_info{{{of}}} 1" for of in self._information)
            ),
            *_family(
                "gte_requests_total", "counter", "Requests answered.",
                *(f'gte_requests_total{{route="{r}",status="{s}"}} {n}' for (r, s), n in self._requests.items()),
            ),
            *_family(
                "gte_request_seconds", "histogram", "From the end of a request's header to the end of its answer.",
                *(x for r, h in sorted(self._seconds.items()) for x in h.lines("gte_request_seconds", f'route="{r}"')),
            ),
            *_family(
                "gte_batch_texts", "histogram", "Texts that ran through the model together.",
                *self._batch_texts.lines("gte_batch_texts"),
            ),
            *_single("gte_texts_total", "counter", "Texts embedded.", self._texts),
            *_single("gte_tokens_total", "counter", "Tokens embedded, special tokens included.", self._tokens),
            *_family(
                "gte_model_texts_total", "counter", "Texts embedded, by model.",
                *(f'gte_model_texts_total{{model="{_escaped(m)}"}} {n}' for m, n in self._texts_of.items()),
            ),
            *_family(
                "gte_model_tokens_total", "counter", "Tokens embedded, by model.",
                *(f'gte_model_tokens_total{{model="{_escaped(m)}"}} {n}' for m, n in self._tokens_of.items()),
            ),
            *_single("gte_truncated_texts_total", "counter", "Texts that were cut.", self.truncated_texts),
            *_single("gte_queued_texts", "gauge", "Texts that wait for the model.", queued_texts),
            *_single("gte_requests_in_progress", "gauge", "Requests not yet answered.", self.requests_in_progress),
            *_single("gte_held_bytes", "gauge", "Bodies of the requests in progress.", self.held_bytes),
            *_single("process_start_time_seconds", "gauge", "Start, since the epoch.", self.started),
        ]  # fmt: skip
        resident = resident_bytes()
        if resident is not None:
            lines += _single("process_resident_memory_bytes", "gauge", "Resident memory.", resident)
        return "\n".join(lines) + "\n"


def resident_bytes() -> int | None:
    """Resident memory of this process; None where /proc does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _single(name: str, kind: str, meaning: str, value: float) -> list[str]:
    return _family(name, kind, meaning, f"{name} {value}")


def _family(name: str, kind: str, meaning: str, *samples: str) -> list[str]:
    return [f"# HELP {name} {meaning}", f"# TYPE {name} {kind}", *samples]


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
