"""What `gte embed --on ray` does when a worker is killed: every row once, and the vectors of the local engine.

    python examples/ray_worker_killed.py WORK_DIR --rows 200000

Writes a table of short texts, embeds it in this process, then on Ray; kills the worker (SIGKILL) that is in the middle
of a part, twice; then kills the whole run and goes on with --resume; and compares all rows. Prints one JSON object, and
ends with 1 where a row is lost, doubled or different. Linux only: it finds the worker by the file that it writes.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow
from numpy.typing import NDArray
from pyarrow import parquet

from gte_sdk.tables.parts import PART_ROWS

GTE = [sys.executable, "-m", "gte_sdk.cli", "embed"]
WORDS = "red green blue fast slow river mountain code python search vector memory house garden".split()  # noqa: SIM905


class Table(NamedTuple):
    row_ids: NDArray[np.int64]
    texts: list[str]
    vectors: NDArray[np.float32]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work_dir", type=Path, help="a folder that does not exist yet")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--files", type=int, default=1, help="a file is cut into parts of 8,192 rows")
    parser.add_argument("--model", default="gte-mini")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    work_dir: Path = arguments.work_dir
    work_dir.mkdir()

    source = work_dir / "source"
    write_source(source, arguments.rows, arguments.files)
    for path in sorted(source.iterdir()):
        subprocess.run(
            [*GTE, path, "-o", work_dir / f"local-{path.name}", "--model", arguments.model, "-q"], check=True
        )

    output = work_dir / "vectors"
    options = ["--on", "ray", "--workers", str(arguments.workers), "--model", arguments.model]
    parts = sum(-(-parquet.read_metadata(path).num_rows // PART_ROWS) for path in source.iterdir())
    report: dict[str, Any] = {"rows": arguments.rows, "parts": parts}
    report["killed"] = run_and_kill([*GTE, str(source), "-o", str(output), *options], output, parts)

    expected = read_table(sorted(work_dir.glob("local-*.parquet")))
    found = read_table(sorted(output.iterdir()))
    report["rows_lost"] = len(np.setdiff1d(expected.row_ids, found.row_ids))
    report["rows_doubled"] = len(found.row_ids) - len(np.unique(found.row_ids))
    report["same_order_and_texts"] = bool(
        np.array_equal(found.row_ids, expected.row_ids) and found.texts == expected.texts
    )
    report["vectors_same_bits"] = found.vectors.tobytes() == expected.vectors.tobytes()
    print(json.dumps(report))
    whole = report["same_order_and_texts"] and report["vectors_same_bits"]
    sys.exit(0 if whole and not report["rows_lost"] and not report["rows_doubled"] else 1)


def write_source(folder: Path, rows: int, files: int) -> None:
    """Row ids from 0 over all files, texts of 0 to 8 words."""
    folder.mkdir()
    choose = random.Random(7)
    for number, row_ids in enumerate(np.array_split(np.arange(rows), files)):
        texts = [" ".join(choose.choices(WORDS, k=choose.randint(0, 8))) for _ in row_ids]
        table = pyarrow.table({"row_id": row_ids, "text": texts})
        parquet.write_table(table, folder / f"{number:04d}.parquet", row_group_size=5000)


def run_and_kill(command: list[str], output: Path, parts: int) -> list[str]:
    """Runs to the end, with two workers and then the run itself killed on the way. Gives what was killed."""
    folder = output.with_name(output.name + ".unfinished") / "parts"
    killed = []
    with subprocess.Popen(command) as process:
        for done in (parts // 4, parts // 2):
            worker = wait_for_writer(folder, process, done)
            os.kill(worker, signal.SIGKILL)
            killed.append(f"worker {worker}, after {count_done(folder)} parts")
        wait_for_writer(folder, process, count_done(folder) + 1)
        process.kill()
        killed.append(f"the run, after {count_done(folder)} parts")
    subprocess.run([*command, "--resume"], check=True)
    return killed


def wait_for_writer(folder: Path, process: "subprocess.Popen[bytes]", done: int) -> int:
    """The process that is writing a part, once so many are done."""
    while process.poll() is None:
        if count_done(folder) >= done:
            for writer in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError):  # a process that ended, or is not ours
                    names = [str(link.readlink()) for link in (writer / "fd").iterdir()]
                    if any(name.startswith(f"{folder}/.part-") and name.endswith(".part") for name in names):
                        return int(writer.name)
        time.sleep(0.02)
    raise SystemExit(f"the run ended with {process.returncode} before its workers could be killed; give more --rows")


def count_done(folder: Path) -> int:
    return len(list(folder.glob("part-*.parquet")))


def read_table(paths: list[Path]) -> Table:
    table = pyarrow.concat_tables([parquet.read_table(path) for path in paths]).combine_chunks()
    column = table.column("embedding").chunk(0)
    vectors_ND = column.flatten().to_numpy().reshape(len(column), -1)
    return Table(table.column("row_id").to_numpy(), table.column("text").to_pylist(), vectors_ND)


if __name__ == "__main__":
    main()
