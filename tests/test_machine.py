"""What a machine has, read from files like the kernel's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from camelid.machine import available_bytes, gpus, processors, threads

GB = 10**9


def machine(root: Path, files: dict[str, str]) -> Path:
    """A folder that looks like a machine with 8 GB free."""
    for name, text in {"proc/meminfo": f"MemTotal: 1 kB\nMemAvailable: {8 * GB // 1024} kB\n", **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


NOTHING_CACHED = "active_file 0\ninactive_file 0\n"


@pytest.mark.parametrize(
    ("files", "gigabytes"),
    [
        ({}, 8),
        (  # v2, the limit on an outer group; a read model's file pages can be given back
            {
                "proc/self/cgroup": "0::/outer/inner\n",
                "sys/fs/cgroup/outer/memory.max": f"{4 * GB}\n",
                "sys/fs/cgroup/outer/memory.current": f"{3 * GB}\n",
                "sys/fs/cgroup/outer/memory.stat": f"anon 5\nactive_file {GB // 2}\ninactive_file {GB // 2}\n",
                "sys/fs/cgroup/outer/inner/memory.max": "max\n",
                "sys/fs/cgroup/outer/inner/memory.current": f"{3 * GB}\n",
            },
            2,
        ),
        (  # v1, seen from inside a container: the group's path does not exist there
            {
                "proc/self/cgroup": "5:cpuset:/x\n4:memory:/docker/abc\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{6 * GB}\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GB}\n",
                "sys/fs/cgroup/memory/memory.stat": NOTHING_CACHED,
            },
            5,
        ),
        (  # v1 without a limit
            {
                "proc/self/cgroup": "4:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GB}\n",
            },
            8,
        ),
    ],
)
def test_free_memory_is_what_every_limit_leaves(tmp_path, files, gigabytes):
    assert available_bytes(machine(tmp_path, files)) == pytest.approx(gigabytes * GB, abs=1024)


@pytest.mark.parametrize(
    ("files", "slurm", "expected"),
    [
        (
            {"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "150000 100000\n"},
            None,
            "control group quota",
        ),
        ({"proc/self/cgroup": "0::/job\n", "sys/fs/cgroup/job/cpu.max": "max 100000\n"}, None, "processor affinity"),
        (
            {
                "proc/self/cgroup": "1:cpu,cpuacct:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "50000\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            None,
            "control group quota",
        ),
        ({}, "1", "SLURM"),
    ],
)
def test_threads_obey_the_narrowest_limit(tmp_path, monkeypatch, files, slurm, expected):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)))
    for name in ("SLURM_CPUS_PER_TASK", "SLURM_CPUS_ON_NODE"):
        monkeypatch.delenv(name, raising=False)
    if slurm:
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", slurm)
    assert threads(machine(tmp_path, files)) == (16 if expected == "processor affinity" else 1, expected)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ulimit -v and /proc are Linux")
def test_a_limit_of_the_shell_counts():
    code = (
        "import resource; from camelid.machine import available_bytes\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32)); print(available_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 2**32


@pytest.mark.parametrize(
    ("visible", "expected"), [(None, 3), ("", 0), ("-1", 0), ("2", 1), ("0,2", 2), ("0,-1,2", 1), ("0,1,2,3,4", 3)]
)
def test_gpus_that_are_hidden_do_not_count(tmp_path, monkeypatch, visible, expected):
    root = machine(tmp_path, {f"dev/nvidia{name}": "" for name in ("0", "1", "2", "ctl", "-uvm")})
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpus(root) == expected


def test_processors_are_within_what_slurm_gave(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)
    assert processors() == 16
    for given, expected in (("4", 4), ("64", 16), ("0", 1), ("many", 16)):
        monkeypatch.setenv("SLURM_CPUS_PER_TASK", given)
        assert processors() == expected
