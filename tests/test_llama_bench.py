"""A comparison with llama-bench programs: stand-ins that print what llama.cpp's and its fork's print, as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
PROGRAM = """#!{python}
import json, sys
dialect, given = "{dialect}", sys.argv[1:]
if given == ["-h"]:
    print("usage: -p, --n-prompt <n>", "-d, --n-depth <n>" if dialect == "llama.cpp" else "-gp <pp,tg>")
    sys.exit()
value = lambda flag, default="0": given[given.index(flag) + 1] if flag in given else default
if "-broken" in given:
    sys.exit("error: failed to load model")
assert value("-o") == "json" and value("-r") == "2" and value("-t") == "2" and value("-m") == "model.gguf"
row = {{"build_commit": "abc1234", "n_prompt": int(value("-p", "512")), "n_gen": int(value("-n", "128"))}}
if dialect == "llama.cpp":
    row |= {{"n_depth": int(value("-d")), "test_time": "2026-01-01T00:00:00Z"}}
else:
    print("============ Repacked 3 tensors")
    if "-gp" in given:
        prompt, written = map(int, value("-gp").split(","))
        row |= {{"n_prompt": prompt, "n_gen": written, "test": f"tg{{written}}@pp{{prompt}}"}}
    row["repack"] = value("-rtr") == "1"
speed = 1000.0 * row["n_prompt"] + row["n_gen"] + (0.5 if value("-rtr") == "1" else 0)
row |= {{"avg_ts": 1.0, "samples_ns": [7, 8], "samples_ts": [1.0, speed + 10**6 * int(value("-d"))]}}
print("[\\n  " + json.dumps(row, indent=2) + "\\n]")
"""


@pytest.fixture(scope="module")
def runner():
    sys.path.insert(0, str(BENCHMARKS))
    try:
        import llama_bench_runner
    finally:
        sys.path.remove(str(BENCHMARKS))
    return llama_bench_runner


def program(folder: Path, dialect: str) -> Path:
    path = folder / "llama-bench"
    path.write_text(PROGRAM.format(python=sys.executable, dialect=dialect))
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("dialect", "behind_64"), [("llama.cpp", 64 * 10**6 + 8), ("fork", 64 * 1000 + 8)], ids=["-d", "-gp"]
)
def test_each_test_is_asked_for_and_its_second_repetition_read(tmp_path, runner, dialect, behind_64):
    it = runner.LlamaBench("", program(tmp_path, dialect), [], "model.gguf", 2)
    assert it.speed("prefill", 32, 32) == 32_000
    assert it.speed("decode", 0, 8) == 8
    assert it.speed("decode", 64, 8) == behind_64
    assert (it.build, it.name) == ("abc1234", str(tmp_path / "llama-bench"))
    assert [it.can(test, 4) for test in ("prefill", "decode", "batch")] == [True, True, False]


def test_arguments_are_its_own_and_part_of_its_name(tmp_path, runner):
    path = program(tmp_path, "fork")
    repacked = runner.LlamaBench("", path, ["-rtr", "1"], "model.gguf", 2)
    assert (repacked.name, repacked.speed("decode", 0, 8)) == (f"{path} -rtr 1", 8.5)
    assert runner.LlamaBench("llama.cpp", path, [], "model.gguf", 2).name == "llama.cpp"


def test_what_fails_ends_with_its_own_words(tmp_path, runner):
    broken = runner.LlamaBench("", program(tmp_path, "fork"), ["-broken"], "model.gguf", 2)
    with pytest.raises(SystemExit, match="no result of prefill 32: error: failed to load model"):
        broken.speed("prefill", 32, 32)
    with pytest.raises(SystemExit, match="No such file"):
        runner.LlamaBench("", tmp_path / "nothing", [], "model.gguf", 2)


def test_a_row_is_only_that_of_the_test(runner):
    rows = [{"n_prompt": 0, "n_gen": 8, "n_depth": 0}, {"n_prompt": 0, "n_gen": 8, "n_depth": 64}]
    output = f"[1;31mnoise\n[\nmore\n{json.dumps(rows, indent=1)}\nbehind"
    assert runner.find(output, {"n_gen": 8, "n_depth": 64}) == rows[1]
    assert runner.find(output, {"n_gen": 9}) is None
    assert runner.find("nothing", {}) is None


@pytest.mark.slow
def test_a_whole_comparison(smollm2_path, tmp_path):
    path = program(tmp_path, "fork")
    path.write_text(path.read_text().replace(' and value("-m") == "model.gguf"', ""))
    sizes = [
        "--prefill",
        "16",
        "--decode",
        "2",
        "--context",
        "0",
        "8",
        "--batch",
        "2",
        "--repeats",
        "1",
        "--threads",
        "2",
    ]
    bench = ["--llama-bench", f"llama.cpp={path}", "--llama-bench", str(path), "--llama-bench-args", "-rtr 1"]
    command = [sys.executable, str(BENCHMARKS / "compare.py"), str(smollm2_path), *sizes, *bench]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(row["test"], row["size"]) for row in rows] == [("prefill", 16), ("decode", 0), ("decode", 8), ("batch", 2)]
    for row in rows[:3]:
        assert row["ratios"].keys() == {"llama.cpp", f"{path} -rtr 1"}
        assert row["ratio"] == row["ratios"]["llama.cpp"]
        assert row["builds"][f"{path} -rtr 1"] == "abc1234"
    assert rows[1]["llama.cpp"] == {"median": 2.0, "min": 2.0, "max": 2.0}
    assert rows[1][f"{path} -rtr 1_share_of_bandwidth"] > 0
    assert "ratio" not in rows[3]  # it has no test of several sequences
