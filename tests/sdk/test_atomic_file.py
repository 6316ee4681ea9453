"""Files appear whole or not at all, and links, pipes, devices and permissions stay what they are."""

import errno
import os
import shutil
import stat
import sys
from pathlib import Path
from typing import Any

import pytest

from gte_sdk.atomic_file import leftovers, move_whole, replace_directory, replace_whole
from gte_sdk.errors import InputError

posix = pytest.mark.skipif(sys.platform == "win32", reason="as POSIX has it")


def test_a_file_appears_whole_with_the_usual_permissions(tmp_path: Path) -> None:
    target, usual = tmp_path / "out.bin", tmp_path / "usual.bin"
    usual.touch()
    with replace_whole(target, overwrite=False) as file:
        file.write(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert target.stat().st_mode == usual.stat().st_mode
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.bin", "usual.bin"]


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path, failure: type[BaseException]) -> None:
    target = tmp_path / "out.bin"
    target.write_bytes(b"old")

    def fail() -> None:
        with replace_whole(target) as file:
            file.write(b"half")
            raise failure

    with pytest.raises(failure):
        fail()
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_targets_that_cannot_be_are_refused(tmp_path: Path) -> None:
    def attempt(path: Path, overwrite: bool = False) -> None:
        with replace_whole(path, overwrite) as file:
            file.write(b"x")

    existing = tmp_path / "there.npy"
    existing.touch()
    with pytest.raises(InputError, match=r"there\.npy exists") as refusal:
        attempt(existing)
    assert refusal.value.remedy == "overwrite"
    with pytest.raises(InputError, match="is a folder; name a file"):
        attempt(tmp_path, overwrite=True)
    with pytest.raises(InputError, match=r"the folder .*missing does not exist"):
        attempt(tmp_path / "missing" / "a.npy")
    assert list(tmp_path.iterdir()) == [existing]


@posix
@pytest.mark.parametrize("old", [b"old", None], ids=["a link to a file", "a link to nothing yet"])
def test_a_link_keeps_being_one(tmp_path: Path, old: bytes | None) -> None:
    (tmp_path / "elsewhere").mkdir()
    target, link = tmp_path / "elsewhere" / "real.bin", tmp_path / "link.bin"
    if old is not None:
        target.write_bytes(old)
    link.symlink_to(target)
    with replace_whole(link) as file:
        file.write(b"new")
    assert link.readlink() == target
    assert target.read_bytes() == b"new"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["elsewhere", "link.bin", "real.bin"]


@posix
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o666])
def test_the_permissions_of_a_replaced_file_stay(tmp_path: Path, mode: int) -> None:
    target = tmp_path / "out.bin"
    target.touch()
    target.chmod(mode)
    with replace_whole(target) as file:
        assert stat.S_IMODE(os.fstat(file.fileno()).st_mode) == mode
        file.write(b"new")
    assert stat.S_IMODE(target.stat().st_mode) == mode
    assert target.read_bytes() == b"new"


@posix
@pytest.mark.parametrize("name", [None, "read.txt"])
def test_the_error_of_a_full_disk_names_the_target_unless_it_names_a_file(tmp_path: Path, name: str | None) -> None:
    for number in (errno.ENOSPC, errno.EIO):
        with pytest.raises(OSError, match=os.strerror(number)) as caught, replace_whole(tmp_path / "target"):
            raise OSError(number, os.strerror(number), name)
        assert caught.value.filename == (str(tmp_path / "target") if (name, number) == (None, errno.ENOSPC) else name)
    assert not list(tmp_path.iterdir())


@posix
def test_a_device_is_written_into(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(os.devnull)
    for path in (Path(os.devnull), link):
        with replace_whole(path, overwrite=False) as file:
            file.write(b"new")
            file.seek(0)
            assert file.read() == b"new"
    assert Path(os.devnull).is_char_device()
    assert link.is_symlink()


@posix
def test_a_pipe_gets_the_finished_bytes_and_of_a_failed_run_none(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(ZeroDivisionError), replace_whole(pipe) as file:
            file.write(b"%d" % (1 // 0))
        with replace_whole(pipe) as file:
            file.write(b"????, then")
            file.seek(0)
            file.write(b"head")
        assert os.read(reader, 100) == b"head, then"
    finally:
        os.close(reader)
    assert pipe.is_fifo()


@pytest.mark.skipif(not Path("/dev/fd").is_dir(), reason="no /dev/fd")
@pytest.mark.parametrize("name", ["/dev/fd/{}", "/proc/self/fd/{}"])
def test_an_open_descriptor_is_written_to_where_it_stands(tmp_path: Path, name: str) -> None:
    """As /dev/stdout is, where the shell has appended to a file."""
    with (tmp_path / "out").open("wb") as out:
        out.write(b"before ")
        out.flush()
        with replace_whole(Path(name.format(out.fileno())), overwrite=False) as file:
            file.write(b"after")
    assert (tmp_path / "out").read_bytes() == b"before after"


@pytest.mark.parametrize("name", ["a" * 143, "b" * 255, "ü" * 127, "[*?]" + "c" * 200, "line\nbreak", "[a]*?"])
def test_every_name_that_the_file_system_takes_can_be_written(tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    try:
        target.touch()
    except OSError:
        pytest.skip("this file system does not take the name")
    target.unlink()
    for content in (b"one", b"two"):
        with replace_whole(target) as file:
            file.write(content)
            assert leftovers(target) == [Path(file.name)]
    assert target.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [target]


@posix
def test_what_a_killed_writer_left_is_removed_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"
    left, other = tmp_path / ".out.bin.0badcafe.part", tmp_path / ".out.bin.more.0badcafe.part"
    left.touch()
    other.touch()
    with replace_whole(target, keep_leftovers=True) as file:
        assert left.exists()
        file.write(b"first")
        with replace_whole(target) as second:
            assert not left.exists()
            second.write(b"second")
        assert Path(file.name).exists()
    assert target.read_bytes() == b"first"
    assert sorted(tmp_path.iterdir()) == sorted([other, target])


@posix
def test_a_folder_that_a_killed_writer_left_is_removed_and_that_of_a_living_one_is_not(tmp_path: Path) -> None:
    target, left = tmp_path / ("model" * 50), leftover_folder(tmp_path, "model" * 50)
    own = tmp_path / ".model-12345678"
    own.mkdir()
    (left / "new").mkdir()
    with replace_directory(target) as folder:
        assert not left.exists()
        with replace_directory(target) as second:
            (second / "name").write_text("second")
        (folder / "name").write_text("first")
        shutil.rmtree(target)
    assert (target / "name").read_text() == "first"
    assert sorted(tmp_path.iterdir()) == sorted([own, target])


@posix
def test_a_folder_that_a_killed_writer_had_moved_away_is_back(tmp_path: Path) -> None:
    left = leftover_folder(tmp_path, "model")
    (left / "old").mkdir()
    (left / "old" / "name").write_text("old")
    with pytest.raises(InputError, match="model exists"), replace_directory(tmp_path / "model"):
        pass
    assert (tmp_path / "model" / "name").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def leftover_folder(folder: Path, name: str) -> Path:
    with replace_directory(folder / name):
        (left,) = leftovers(folder / name)
        path = left.name
    shutil.rmtree(folder / name)
    (folder / path).mkdir()
    return folder / path


def test_a_target_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    target = tmp_path / "out.bin"

    def race() -> Any:
        with replace_whole(target, overwrite=False) as file:
            file.write(b"mine")
            target.write_bytes(b"theirs")

    with pytest.raises(InputError, match="exists"):
        race()
    assert target.read_bytes() == b"theirs"


@pytest.fixture
def windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that somebody has open keep their names, as there: those called "mapped", and folders with one."""
    rename = Path.rename

    def refusing(source: Path, target: Path) -> Path:
        for path in (source, target):
            if path.name == "mapped" or (path / "mapped").exists():
                error = PermissionError(13, "Access is denied")
                setattr(error, "winerror", 5)  # noqa: B010 which only Windows' own type has
                raise error
        return rename(source, target)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(Path, "rename", refusing)
    monkeypatch.setattr(Path, "replace", refusing)


def write(path: Path, content: bytes) -> None:
    with replace_whole(path) as file:
        file.write(content)


def test_windows_replaces_a_file_once_it_is_closed(tmp_path: Path, windows: None) -> None:
    for content in (b"old", b"new"):
        write(tmp_path / "out.bin", content)
        assert (tmp_path / "out.bin").read_bytes() == content
    assert [path.name for path in tmp_path.iterdir()] == ["out.bin"]


def test_windows_keeps_a_file_that_is_open_and_the_error_says_so(tmp_path: Path, windows: None) -> None:
    target = tmp_path / "mapped"
    target.write_bytes(b"old")
    with pytest.raises(InputError, match="mapped is open, and Windows replaces no file that is: close what reads it"):
        write(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["mapped"]
    (tmp_path / "finished").write_bytes(b"new")
    with pytest.raises(InputError, match="mapped is open"):
        move_whole(tmp_path / "finished", target)


def fill(path: Path, name: str) -> None:
    with replace_directory(path, overwrite=True) as folder:
        (folder / name).write_bytes(b"new")


def test_a_folder_that_cannot_be_replaced_stays(tmp_path: Path, windows: None) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mapped").write_bytes(b"old")
    with pytest.raises(InputError, match="model is open"):
        fill(tmp_path / "model", "weights")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "mapped"]

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "weights").write_bytes(b"old")
    with pytest.raises(OSError, match="Access is denied"):
        fill(tmp_path / "other", "mapped")  # a scanner has the new file open
    assert (tmp_path / "other" / "weights").read_bytes() == b"old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "other"]
