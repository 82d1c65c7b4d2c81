"""Products in tiles beside those in lanes, where weights and activations are as large as they come."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from camelid.engine.backend_cpu import instruction_sets

HERE = Path(__file__).parent
SOURCE = HERE.parents[2] / "camelid" / "engine" / "csrc"
AVX512 = [
    "-mavx2",
    "-mfma",
    "-mf16c",
    "-mavx512f",
    "-mavx512bw",
    "-mavx512vl",
    "-mavx512dq",
    "-mavx512vnni",
    "-mavx512bf16",
]
FLAGS = {"isa/amx": [*AVX512, "-mamx-tile", "-mamx-bf16"], "isa/avx512bf16": AVX512, "isa/scalar": [], "isa/isa": []}


@pytest.mark.slow
@pytest.mark.skipif("amx" not in instruction_sets() or not shutil.which("c++"), reason="needs AMX and a compiler")
def test_tiles_give_the_bits_of_lanes_at_the_ends_of_their_ranges(tmp_path: Path) -> None:
    flags = ["-std=c++17", "-O1", "-ffp-contract=off", f"-I{SOURCE}", "-w"]
    flags += ["-DCAMELID_X86", "-DCAMELID_HAS_amx", "-DCAMELID_HAS_avx512bf16"]
    for name, own in FLAGS.items():
        built = tmp_path / f"{Path(name).name}.o"
        subprocess.run(["c++", *flags, *own, "-c", SOURCE / f"{name}.cpp", "-o", built], check=True)
    program = tmp_path / "tiles"
    subprocess.run(["c++", *flags, HERE / "tiles.cpp", *tmp_path.glob("*.o"), "-o", program], check=True)
    lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()
    different = {name: int(value) for name, value in (line.split() for line in lines)}
    assert len(different) == 8 * 4 * 3 * 2
    assert {name: value for name, value in different.items() if value} == {}
