"""Saving under faults: killed at a random moment, or out of disk, the file is the old index or the new one, whole."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from gte_sdk import Index

KILL_COUNT = int(os.environ.get("GTE_INDEX_KILLS", "12"))
ROWS = 4000

# Saves two different indexes in turn, for ever.
SAVER = """
import sys
import numpy as np
from gte_sdk import Index
path, row_count = sys.argv[1], int(sys.argv[2])
indexes = []
for value in (1, 2):
    index = Index(64, fingerprint=f"version {value}")
    index.add(np.full((row_count * value, 64), value, np.float32))
    indexes.append(index)
print("ready", flush=True)
while True:
    for index in indexes:
        index.save(path)
"""


def check_whole(path: Path) -> None:
    index = Index.open(path)
    version = {ROWS: 1, 2 * ROWS: 2}[len(index)]
    assert index.fingerprint == f"version {version}"
    assert all((vector == version).all() for _, vector in index)


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_a_killed_save_leaves_a_whole_index(tmp_path: Path) -> None:
    path = tmp_path / "index.gte"
    leftovers = 0
    for turn in range(KILL_COUNT):
        saver = subprocess.Popen([sys.executable, "-c", SAVER, str(path), str(ROWS)], stdout=subprocess.PIPE)
        assert saver.stdout is not None
        assert saver.stdout.readline() == b"ready\n"
        # One save takes some milliseconds; the first ones also meet the moment before any file.
        time.sleep(random.Random(turn).uniform(0, 0.05))
        deadline = time.monotonic() + 60
        while turn >= KILL_COUNT // 2 and not path.exists():  # a busy disk may need longer for the first one
            assert time.monotonic() < deadline
            time.sleep(0.001)
        saver.send_signal(signal.SIGKILL)
        saver.wait()
        saver.stdout.close()
        if path.exists():
            check_whole(path)
        leftovers += len(list(tmp_path.glob(".index.gte.*.part")))
    assert path.exists()
    # The next save clears what the killed ones left.
    index = Index(64)
    index.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["index.gte"]
    if KILL_COUNT >= 100:
        assert leftovers > 0, "no kill met a save half way: the test has lost its teeth"


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limit of a file's size is set as on Linux")
@pytest.mark.parametrize("limit", [0, 4096, 100_000, ROWS * 256, ROWS * 264 + 4096])
def test_a_full_disk_is_an_error_and_keeps_the_old_file(tmp_path: Path, limit: int) -> None:
    path = tmp_path / "index.gte"
    old = Index(64)
    old.add(np.ones((10, 64), np.float32))
    old.save(path)
    before = path.read_bytes()
    # A limit on the size of files fails a write as a full disk does, at the same byte each time.
    program = f"""
import resource, signal, sys
import numpy as np
from gte_sdk import Index
index = Index(64)
index.add(np.ones(({ROWS}, 64), np.float32))
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
try:
    index.save(sys.argv[1])
except OSError as error:
    print("refused", error.errno)
index.search(np.ones(64, np.float32), 3)
"""
    result = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert result.stdout.startswith("refused")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["index.gte"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_searches_with_threads_of_its_own() -> None:
    """The parent's pool has threads that the child has not; and the child of a child is no different."""
    program = """
import os, sys
import numpy as np
from gte_sdk import Index, top_k_cosine
vectors = np.random.default_rng(0).standard_normal((20000, 64)).astype(np.float32)
index = Index(64, "int8")
index.add(vectors)
expected = index.search(vectors[:50], 5, threads=4)
def check():
    for _ in range(3):
        result = index.search(vectors[:50], 5, threads=4)
        assert result.scores.tobytes() == expected.scores.tobytes()
        assert top_k_cosine(vectors[:3], vectors, 1, threads=3).indices.tolist() == [[0], [1], [2]]
check()
child = os.fork()
if child == 0:
    check()
    grandchild = os.fork()
    if grandchild == 0:
        check()
        os._exit(0)
    os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
check()
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    subprocess.run([sys.executable, "-W", "ignore", "-c", program], check=True, timeout=300)
