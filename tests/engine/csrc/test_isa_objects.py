"""What runs on every machine holds no instruction that some machines lack."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[3] / "camelid" / "engine" / "csrc"
BASELINE = (
    "isa/scalar", "isa/isa", "forward", "matmul", "attention", "state", "weights", "pack", "pool", "buffer", "measure",
    "sampling/chain", "sampling/sampler", "sampling/steps",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which("c++") and shutil.which("objdump")) or not Path("/proc/cpuinfo").exists(),
    reason="needs a compiler and objdump",
)
@pytest.mark.parametrize("name", BASELINE)
def test_baseline_objects_hold_no_avx(tmp_path: Path, name: str) -> None:
    machine = subprocess.run(["c++", "-dumpmachine"], check=True, capture_output=True, text=True).stdout
    if not machine.startswith("x86_64"):
        pytest.skip("not an x86-64 compiler")
    built = tmp_path / "baseline.o"
    flags = ["-std=c++17", "-O2", "-fPIC", "-ffp-contract=off", "-DCAMELID_X86"]
    subprocess.run(["c++", *flags, "-c", str(SOURCE / f"{name}.cpp"), "-o", str(built)], check=True)
    listing = subprocess.run(["objdump", "-d", str(built)], check=True, capture_output=True, text=True).stdout
    assert "ret" in listing
    assert not re.search(r"%[yz]mm|\tv[a-z]+[0-9a-z]* ", listing)
