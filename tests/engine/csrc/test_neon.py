"""The NEON kernels beside the scalar ones, cross-compiled and run by an emulator where both are at hand."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCE = HERE.parents[2] / "camelid" / "engine" / "csrc"
COMPILER, EMULATOR = "aarch64-linux-gnu-g++", "qemu-aarch64-static"


@pytest.mark.slow
@pytest.mark.skipif(
    not (shutil.which(COMPILER) and shutil.which(EMULATOR)),
    reason=f"needs {COMPILER} and {EMULATOR} (Debian: g++-aarch64-linux-gnu qemu-user-static)",
)
def test_neon_kernels_give_what_scalar_ones_give(tmp_path: Path) -> None:
    program = tmp_path / "neon"
    flags = ["-std=c++17", "-O2", "-ffp-contract=off", "-Wall", "-Wextra", "-static", f"-I{SOURCE}"]
    objects = [HERE / "neon.cpp", SOURCE / "isa" / "neon.cpp", SOURCE / "isa" / "scalar.cpp"]
    subprocess.run([COMPILER, *flags, "-march=armv8.2-a+dotprod", *objects, "-o", program], check=True)
    lines = subprocess.run([EMULATOR, program], check=True, capture_output=True, text=True).stdout.splitlines()
    errors = {name: float(value) for name, value in (line.split() for line in lines)}
    assert len(errors) == 8 * 2 + 3 + 3 + 3
    assert {name: value for name, value in errors.items() if not value < 1e-6} == {}
