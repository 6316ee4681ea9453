"""The example for a single-board computer, run as its users run it: lines in, answers out, restarts, damage."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc and flock of Linux")

PROGRAM = Path(__file__).parents[2] / "examples" / "edge" / "field_notes.py"
NOTES = """\
2026-05-01 06:00 greenhouse: the soil is dry, 12 % moisture
2026-05-01 06:05 battery voltage fell to 11.4 V
2026-05-01 06:10 the door of the barn was opened
"""


def field_notes(folder: Path, lines: str, *documents: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(PROGRAM), str(folder), *map(str, documents)]
    return subprocess.run(command, input=lines, capture_output=True, text=True, timeout=600, check=False)


def first_answers(output: str) -> list[str]:
    """The best note of each question."""
    return re.findall(r"^\? .+\n +-?\d\.\d\d  (.+)$", output, flags=re.MULTILINE)


def test_notes_are_found_by_meaning_and_kept(tmp_path: Path) -> None:
    first = field_notes(tmp_path, NOTES + "? do the plants need water\n? power supply is weak")
    assert (first.returncode, len(first_answers(first.stdout))) == (0, 2), first.stderr
    assert "soil is dry" in first_answers(first.stdout)[0]
    assert "battery" in first_answers(first.stdout)[1]
    again = field_notes(tmp_path, "? who went into the barn\n")
    assert "door of the barn" in first_answers(again.stdout)[0]
    figures = re.findall(
        r"^3 notes, (\w+): ([\d.]+) s since the start, ([\d.]+) s of processor time; (\d+) MB resident",
        again.stderr,
        re.M,
    )
    assert [what for what, *_ in figures] == ["ready", "done"]
    assert all(0 < float(cpu) <= 2 * float(start) for _, start, cpu, _ in figures)
    assert all(20 < int(resident) < 150 for *_, resident in figures)


def test_documents_are_read_in_passages(tmp_path: Path) -> None:
    manual = tmp_path / "pump.md"
    manual.write_text(
        "# Pump\n\n## Noise\n\nA rattling pump has air in its pipe.\n\n## Winter\n\nDrain it before frost.\n"
    )
    run = field_notes(tmp_path / "notes", "? protect it from freezing\n", manual)
    assert first_answers(run.stdout) == [f"{manual}:7: Pump ## Winter Drain it before frost."], run.stderr


def test_full_segments_are_mapped_and_what_is_damaged_is_made_again(tmp_path: Path) -> None:
    readings = "".join(f"reading {number}: {number % 40} degrees\n" for number in range(9000))
    question = "? was the cellar flooded\n"
    flooded = "the cellar is full of water\n"
    assert field_notes(tmp_path, flooded + readings).returncode == 0
    segments = sorted(tmp_path.glob("*.gte"))
    assert len(segments) == 2
    notes = (tmp_path / "notes.txt").read_bytes()
    assert segments[1].stem.split("-")[0] == segments[0].stem.split("-")[1]
    assert notes[: int(segments[1].stem.split("-")[1])].count(b"\n") == 2 * 4096

    before = field_notes(tmp_path, question)
    assert first_answers(before.stdout) == [flooded.strip()]
    content = bytearray(segments[0].read_bytes())
    content[len(content) // 2] ^= 255
    segments[0].write_bytes(content)
    with (tmp_path / "notes.txt").open("ab") as file:
        file.write(b"half a line, as a power cut leaves it")
    after = field_notes(tmp_path, question)
    assert "is made again" in after.stderr
    assert re.sub(r"\(.+ ms\)", "", after.stdout) == re.sub(r"\(.+ ms\)", "", before.stdout)
    assert (tmp_path / "notes.txt").read_bytes() == notes
    assert sorted(tmp_path.glob("*.gte")) == segments
    assert "is made again" not in field_notes(tmp_path, question).stderr


def test_an_answered_note_outlives_a_kill(tmp_path: Path) -> None:
    command = [sys.executable, str(PROGRAM), str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("the key lies under the third stone\n? where is the key\n")
        process.stdin.flush()
        assert process.stdout.readline().startswith("? where is the key")
        second = field_notes(tmp_path, "")
        assert (second.returncode, second.stderr) == (
            1,
            f"field_notes.py: {tmp_path} is in use by another program; give this one a folder of its own\n",
        )
        process.send_signal(signal.SIGKILL)
    assert "third stone" in first_answers(field_notes(tmp_path, "? where is the key").stdout)[0]
