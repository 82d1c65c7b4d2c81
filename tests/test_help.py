"""`camelid --help` is quick and light, and every verb explains itself."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from camelid.cli import verb_lines

VERBS = {
    "chat",
    "generate",
    "infill",
    "next",
    "tokens",
    "info",
    "models",
    "pull",
    "convert",
    "merge",
    "bench",
    "doctor",
    "serve",
    "prepare",
    "data",
    "train",
    "launch",
    "inspect",
    "plot",
    "sandbox",
    "eval",
    "card",
}


def camelid(*arguments: str) -> subprocess.CompletedProcess[str]:
    command, wide = [sys.executable, "-m", "camelid", *arguments], {**os.environ, "COLUMNS": "120"}
    return subprocess.run(command, env=wide, capture_output=True, text=True, check=False)


def test_help_costs_under_a_third_of_a_second_of_cpu():
    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    costs = []
    for _ in range(3):
        before = used()
        assert camelid("--help").returncode == 0
        costs.append(used() - before)
    assert min(costs) < 0.3


def test_help_names_every_verb_with_a_line():
    assert set(verb_lines()) >= VERBS
    shown = camelid("--help").stdout
    for verb, line in verb_lines().items():
        assert verb in shown
        assert line.endswith(".")
        assert line in shown


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_every_verb_shows_its_flags(verb):
    done = camelid(verb, "--help")
    assert done.returncode == 0
    assert f"camelid {verb}" in done.stdout


def test_the_package_and_its_help_load_nothing_heavy():
    code = (
        "import sys, camelid, camelid.cli\n"
        "try: camelid.cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numpy', 'torch', 'pydantic', 'tokenizers', 'transformers', 'huggingface_hub'} & set(sys.modules)\n"
        "sys.exit(f'loaded {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
