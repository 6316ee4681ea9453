"""Damaged files of every format: each is read or refused with an error of ours, without a crash, a hang or a flood.

`make test` runs a few cases of each format, `make fuzz` two thousand: GTE_FUZZ_CASES. A failure names its seeds; one of
them alone runs by `python tests/fuzz/run_cases.py FORMAT SEED SEED+1 FOLDER`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from formats import FORMATS

CASES = int(os.environ.get("GTE_FUZZ_CASES", "40"))
PROGRAM = Path(__file__).with_name("run_cases.py")


def faults(name: str, count: int, folder: Path, program: Path = PROGRAM) -> dict[int, str]:
    """What neither was read nor refused, by seed; -1: none was read, so the cases test nothing."""
    found: dict[int, str] = {}
    seed = 0
    outcomes: set[str] = set()
    while seed < count and len(found) < 50:
        command = [sys.executable, str(program), name, str(seed), str(count), str(folder)]
        ended = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        lines = [json.loads(line) for line in ended.stdout.splitlines()]
        assert lines, ended.stderr
        found.update({number: outcome for number, outcome in lines if outcome not in ("began", "read", "refused")})
        outcomes.update(outcome for _, outcome in lines)
        seed = lines[-1][0] + 1
        if lines[-1][1] == "began":
            found[seed - 1] = f"ended the process ({ended.returncode}): {ended.stderr[-1500:]}"
    if "read" not in outcomes:
        found[-1] = "every case was refused, also of what is not damaged"
    return found


@pytest.mark.parametrize("name", FORMATS)
def test_damage_is_read_or_refused(name: str, tmp_path: Path) -> None:
    found = faults(name, CASES, tmp_path / "case")
    assert not found, "\n".join(f"{name}, seed {seed}: {outcome}" for seed, outcome in found.items())


def test_a_raw_error_a_crash_and_a_hang_are_faults(tmp_path: Path) -> None:
    """Cases 1, 3 and 5 go wrong; those between them and behind them run."""
    program = tmp_path / "run_cases.py"
    program.write_text(PROGRAM.read_text(encoding="utf-8").replace("SECONDS = 60", "SECONDS = 1"), encoding="utf-8")
    (tmp_path / "formats.py").write_text(
        "import itertools, os, time\n"
        "from gte_sdk import InputError\n"
        "def prepare(name, folder):\n"
        "    def case(random):\n"
        "        seed = next(seeds)\n"
        "        if seed == 1: {}['no key']\n"
        "        if seed == 2: raise InputError('refused')\n"
        "        if seed == 3: os.kill(os.getpid(), 9)\n"
        "        if seed == 5: time.sleep(1000)\n"
        "    import sys\n"
        "    seeds = itertools.count(int(sys.argv[2]))\n"
        "    return case\n",
        encoding="utf-8",
    )
    found = faults("made up", 8, tmp_path / "case", program)
    assert list(found) == [1, 3, 5]
    assert found[1] == "raised KeyError: \"'no key'\" at formats.py:6"
    assert found[3].startswith("ended the process (-9)")
    assert "Timeout" in found[5]
