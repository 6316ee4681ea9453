"""From the start of a process to its first vector: gte_sdk against other ways to run the same weights.

    python benchmarks/first_vector.py MODEL CHECKPOINT [--rivals gte-int8,fastembed-int8] [--turns 9]

The rivals are those of embedding_rivals.py, and take turns, each time in a process of its own on --cores. Before them
come bare Python, `import numpy` and `import gte_sdk`, and gte_sdk.embed with the bundled model. The first turn, which
fills the disk cache and ours, does not count. Prints medians and the least, JSON last.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PROGRAMS = {
    "python": "pass",
    "import numpy": "import numpy",
    "import gte_sdk": "import gte_sdk",
    "gte_sdk.embed(['hi'])": "import gte_sdk; gte_sdk.embed(['hi'])",
}
DEFAULT_RIVALS = (
    "gte-int8,gte-int8-onnxruntime,gte-fp32,gte-fp32-onnxruntime,fastembed-int8,fastembed-fp32,sentence-transformers"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a directory of export/to_onnx.py with both precisions")
    parser.add_argument("checkpoint", type=Path, help="what it was made from")
    parser.add_argument("--rivals", default=DEFAULT_RIVALS)
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--cores", default="0,1")
    arguments = parser.parse_args()
    cores = {int(core) for core in arguments.cores.split(",")}
    model, checkpoint = str(arguments.model.resolve()), str(arguments.checkpoint.resolve())
    programs = dict(PROGRAMS)
    for rival in arguments.rivals.split(","):
        programs[rival] = (
            f"import sys; sys.path.append({str(ROOT)!r})\n"
            "from pathlib import Path\n"
            "from benchmarks.embedding_rivals import RIVALS\n"
            f"RIVALS[{rival!r}].open(Path({model!r}), Path({checkpoint!r}))(['hi'])"
        )
    taken: dict[str, list[float]] = {name: [] for name in programs}
    for turn in range(arguments.turns + 1):
        for name, program in programs.items():
            milliseconds = 1000 * run(program, cores)
            if turn:
                taken[name].append(milliseconds)
    for name, values in taken.items():
        print(f"{name:32}{statistics.median(values):9.0f} ms, least {min(values):.0f}")
    print(json.dumps({name: [round(value, 1) for value in values] for name, values in taken.items()}))


def run(program: str, cores: set[int]) -> float:
    """Seconds of a process that runs the program, away from the checkout so that the installed gte_sdk is taken."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(cores)), "HF_HUB_OFFLINE": "1"}
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        check=True,
        cwd="/",
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
