"""How many threads this process may use, for ONNX Runtime sessions, the encoder and the search kernels.

The machine's core count is wrong in a container or under `taskset`: threads beyond the quota add no speed, and the
system slows the whole process down. So the answer is the least of the CPU affinity, the cgroup CPU quota (v1 and v2,
every level up to the root) and OMP_NUM_THREADS, the usual variable that limits native threads.
"""

import os
from functools import lru_cache
from math import ceil
from pathlib import Path

_PROCESS_CGROUPS = Path("/proc/self/cgroup")
_CGROUP_MOUNT = Path("/sys/fs/cgroup")


def available_threads() -> int:
    """The threads that this process may run at the same time, at least 1.

    Affinity and OMP_NUM_THREADS are read at each call, the cgroup quota once per process.
    """
    return max(1, min(thread_limits().values()))


def thread_limits() -> dict[str, int]:
    """The limits on the threads of this process, by name. The least of them counts."""
    limits = {"the machine's processors": os.cpu_count() or 1}
    if hasattr(os, "sched_getaffinity"):
        limits["CPU affinity"] = len(os.sched_getaffinity(0))
    quota = process_cgroup_quota()
    if quota is not None:
        limits["cgroup CPU quota"] = ceil(quota)
    environment = _environment_limit(os.environ.get("OMP_NUM_THREADS", ""))
    if environment is not None:
        limits["OMP_NUM_THREADS"] = environment
    return limits


def deciding_limit() -> str:
    """The name of the limit that `available_threads` comes from."""
    limits = thread_limits()
    return min(limits, key=lambda name: limits[name])


def _environment_limit(value: str) -> int | None:
    """The first number of OMP_NUM_THREADS ("4", or "4,2", one for each level of nesting), or None."""
    first = value.split(",")[0].strip()
    return int(first) if first.isdecimal() and int(first) > 0 else None


@lru_cache(maxsize=1)
def process_cgroup_quota() -> float | None:
    """As `cgroup_quota` for this process, read once."""
    return cgroup_quota(_PROCESS_CGROUPS, _CGROUP_MOUNT)


def cgroup_quota(process_cgroups: Path, mount: Path) -> float | None:
    """The cores that the tightest cgroup around this process allows, such as 1.5; None if nothing limits them.

    `process_cgroups` has the lines of /proc/self/cgroup, "id:controllers:path"; v2 has id 0 and no controllers.
    """
    quotas: list[float] = []
    for line in _read(process_cgroups).splitlines():
        controllers, _, path = line.partition(":")[2].partition(":")
        if controllers == "":
            folder, read_quota = mount, _quota_v2
        elif "cpu" in controllers.split(","):
            folder = next((f for f in (mount / controllers, mount / "cpu") if f.is_dir()), mount)
            read_quota = _quota_v1
        else:
            continue
        # In a container the path may be the host's, absent under this mount: the walk up still ends at the mount.
        relative = Path(path.lstrip("/"))
        quotas += [q for level in (relative, *relative.parents) if (q := read_quota(folder / level)) is not None]
    return min(quotas, default=None)


def _quota_v2(folder: Path) -> float | None:
    fields = _read(folder / "cpu.max").split()
    return _cores(fields[0], fields[1]) if len(fields) == 2 else None


def _quota_v1(folder: Path) -> float | None:
    return _cores(_read(folder / "cpu.cfs_quota_us").strip(), _read(folder / "cpu.cfs_period_us").strip())


def _cores(quota: str, period: str) -> float | None:
    """Microseconds of CPU time in each period, as cores; None for "max" (v2), "-1" (v1) or an unreadable file."""
    if quota.isdecimal() and period.isdecimal() and int(quota) > 0 and int(period) > 0:
        return int(quota) / int(period)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except (OSError, ValueError):
        return ""
