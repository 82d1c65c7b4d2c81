"""What a machine has, read from files like the kernel's, and what is said when a model does not fit."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from camelid.engine import memory
from camelid.engine.options import EngineOptions
from camelid.errors import OptionError, ResourceError
from tests.tiny import tiny_config

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
    assert memory.available_bytes(machine(tmp_path, files)) == pytest.approx(gigabytes * GB, abs=1024)


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
    assert memory.threads(machine(tmp_path, files)) == (16 if expected == "processor affinity" else 1, expected)


CONFIG = tiny_config(context=4096)
PER_TOKEN = 2 * 2 * 2 * 16 * 4  # keys and values, layers, key/value heads, their width, bytes
MODEL = SimpleNamespace(path=Path("big.gguf"), config=CONFIG)


def refusal(free: float, bytes_per_weight: int = 4, **options: int) -> str:
    with pytest.raises(ResourceError) as error:
        memory.check_fits(MODEL, bytes_per_weight, EngineOptions(**options), "numpy", int(free))
    return str(error.value)


def test_a_refusal_names_settings_that_fit():
    assert memory.cache_bytes_per_token(CONFIG, 4) == PER_TOKEN
    weights = CONFIG.n_parameters * 4 + memory.SCRATCH
    free = weights + 1000 * PER_TOKEN
    said = refusal(free, context=4096)
    assert said.startswith("big.gguf: needs 0.3 GB of memory on the numpy backend")
    assert "--context 960 would fit" in said
    memory.check_fits(MODEL, 4, EngineOptions(context=960), "numpy", int(free))
    both = refusal(free, context=512, cache_tokens=2000)
    assert "--context 960 --cache-tokens 960 would fit" in both
    memory.check_fits(MODEL, 4, EngineOptions(context=960, cache_tokens=960), "numpy", int(free))
    assert "--backend cpu" in refusal(weights)
    assert "smaller model" in refusal(0, bytes_per_weight=2)


def test_the_context_is_the_models_unless_memory_ends_before(caplog):
    caplog.set_level(logging.WARNING)
    assert memory.fitting_context(CONFIG, EngineOptions(), 4, GB) == 4096
    assert not caplog.messages
    assert memory.fitting_context(CONFIG, EngineOptions(), 4, 1000 * PER_TOKEN) == 800
    assert caplog.messages == ["context reduced from 4096 to 800 tokens: memory for the cache ends there"]
    caplog.clear()
    assert memory.fitting_context(CONFIG, EngineOptions(context=5000), 4, GB) == 5000
    assert "the model was made for" in caplog.messages[0]


def test_the_cache_is_bounded():
    assert memory.cache_tokens(CONFIG, EngineOptions(), 4096, 4, 100 * GB) == 8 * 4096
    assert memory.cache_tokens(CONFIG, EngineOptions(), 4096, 4, 4 * 5000 * PER_TOKEN) == 5000
    assert memory.cache_tokens(CONFIG, EngineOptions(cache_tokens=4500), 4096, 4, GB) == 4500
    with pytest.raises(OptionError, match="--context 100"):
        memory.cache_tokens(CONFIG, EngineOptions(cache_tokens=100), 4096, 4, GB)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="ulimit -v and /proc are Linux")
def test_a_limit_of_the_shell_counts():
    code = (
        "import resource; from camelid.engine.memory import available_bytes\n"
        "resource.setrlimit(resource.RLIMIT_AS, (2**32, 2**32)); print(available_bytes())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 0 < int(done.stdout) < 2**32
