"""The count of threads follows affinity, cgroup quota and OMP_NUM_THREADS."""

import os
from pathlib import Path

import pytest

from gte_sdk.threads import available_threads, cgroup_quota


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="ascii")


def test_the_tightest_level_of_a_v2_tree_counts(tmp_path: Path) -> None:
    write(tmp_path / "self", "0::/user.slice/app.scope\n")
    write(tmp_path / "fs/cpu.max", "max 100000\n")
    write(tmp_path / "fs/user.slice/cpu.max", "150000 100000\n")
    write(tmp_path / "fs/user.slice/app.scope/cpu.max", "400000 100000\n")
    assert cgroup_quota(tmp_path / "self", tmp_path / "fs") == 1.5


def test_a_container_that_sees_only_its_own_v2_mount(tmp_path: Path) -> None:
    write(tmp_path / "self", "0::/../../kubepods/pod1\n")
    write(tmp_path / "fs/cpu.max", "200000 100000\n")
    assert cgroup_quota(tmp_path / "self", tmp_path / "fs") == 2.0


@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
def test_v1_quota(tmp_path: Path, folder: str) -> None:
    write(tmp_path / "self", "5:memory:/x\n4:cpu,cpuacct:/docker/abc\n")
    write(tmp_path / f"fs/{folder}/docker/abc/cpu.cfs_quota_us", "50000\n")
    write(tmp_path / f"fs/{folder}/docker/abc/cpu.cfs_period_us", "100000\n")
    write(tmp_path / f"fs/{folder}/cpu.cfs_quota_us", "-1\n")
    write(tmp_path / f"fs/{folder}/cpu.cfs_period_us", "100000\n")
    assert cgroup_quota(tmp_path / "self", tmp_path / "fs") == 0.5


@pytest.mark.parametrize("text", ["max 100000\n", "", "garbage", "0 0\n"])
def test_no_limit_and_unreadable_files_are_no_quota(tmp_path: Path, text: str) -> None:
    write(tmp_path / "self", "0::/\n")
    write(tmp_path / "fs/cpu.max", text)
    assert cgroup_quota(tmp_path / "self", tmp_path / "fs") is None
    assert cgroup_quota(tmp_path / "absent", tmp_path / "fs") is None


def test_the_environment_and_affinity_limit_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    unlimited = available_threads()
    assert 1 <= unlimited <= (os.cpu_count() or 1)
    for value, expected in (("1", 1), ("1,4", 1), ("100000", unlimited), ("0", unlimited), ("many", unlimited)):
        monkeypatch.setenv("OMP_NUM_THREADS", value)
        assert available_threads() == expected


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity calls")
def test_one_allowed_core_is_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    allowed = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert available_threads() == 1
    finally:
        os.sched_setaffinity(0, allowed)
