"""Every command in README and docs runs; every file they name is there; examples run."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest

from camelid.cli import verb_lines
from tests.evals.sandboxed import skip_without_sandbox

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
NETWORK = "needs the network"


def shell_lines() -> list[tuple[str, str]]:
    """(page, command) of every line in a block marked `sh`."""
    found = []
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            found += [(page.name, line) for line in block.splitlines() if line.strip()]
    return found


def walks() -> list[tuple[str, list[str]]]:
    """(page and number, commands) of every block marked `sh in one folder`: its lines need what those before made."""
    found = []
    for page in PAGES:
        blocks = re.findall(r"^```sh in one folder\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S)
        found += [(f"{page.name}-{number}", block.splitlines()) for number, block in enumerate(blocks, 1)]
    return found


WALKS = dict(walks())
SHORT = "--set pretrain.steps=12 --set pretrain.warmup_steps=2 --set pretrain.validation_every=6"
RUN_HERE = {line for _, line in shell_lines() if NETWORK not in line and not line.startswith("make ")}
SERVERS = sorted(line for line in RUN_HERE if line.startswith(("camelid serve", "camelid arena serve")))
COMMANDS = sorted(RUN_HERE - {*SERVERS})


@pytest.fixture(scope="module")
def environment(smollm2_path, tmp_path_factory):
    """A place with the default model, and `camelid` on the path."""
    home = tmp_path_factory.mktemp("home")
    changed = {**os.environ, "CAMELID_HOME": str(home), "COLUMNS": "100"}
    changed["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([sys.executable, "-m", "camelid", "pull", "smollm2:135m-instruct"], env=changed, check=True)
    return changed


def run_line(line: str, environment: dict[str, str], folder: Path) -> subprocess.CompletedProcess[str]:
    """A line as a reader's shell runs it, in a folder, with nothing on standard input."""
    return subprocess.run(
        ["bash", "-c", line],
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS)
def test_a_documented_command_runs(command, environment, tmp_path):
    done = run_line(command, environment, tmp_path)
    if command.split("#")[0].split() == ["camelid", "chat"]:  # an empty pipe asks nothing, and says so
        assert "empty" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.slow
@pytest.mark.parametrize("walk", WALKS)
def test_a_documented_walk_leads_to_its_end(walk, environment, tmp_path):
    """Commands in order, in one folder; a training is cut short, so that it ends on a busy machine too."""
    if walk.startswith("sandbox.md"):
        skip_without_sandbox()
    for command in WALKS[walk]:
        line, _, _ = command.partition("#")
        done = run_line(f"{line} {SHORT}" if line.startswith("camelid train ") else line, environment, tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stdout.strip(), command


@pytest.mark.slow
@pytest.mark.parametrize("command", SERVERS)
def test_a_documented_server_answers_and_ends(command, environment, tmp_path):
    port = int((re.findall(r"--port (\d+)", command) or [8000])[0])
    with socket.socket() as other:
        if other.connect_ex(("127.0.0.1", port)) == 0:
            pytest.skip(f"something else serves port {port} here")
    words = shlex.split(command, comments=True)
    with subprocess.Popen(words, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        said = ""
        while f"127.0.0.1:{port}" not in said and (line := server.stderr.readline()):
            said += line
        for _ in range(1000):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        with urlopen(f"http://127.0.0.1:{port}/health", timeout=60) as answer:
            assert answer.status == 200
        server.send_signal(signal.SIGTERM)
        server.stderr.read()
    assert server.returncode == 0, said


def test_commands_that_need_more_than_this_machine_name_real_verbs_and_targets():
    rest = [line for _, line in shell_lines() if NETWORK in line or line.startswith("make ")]
    assert rest
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for line in rest:
        program, word = shlex.split(line, comments=True)[:2]
        assert (program == "make" and f"\n{word}:" in makefile) or (program == "camelid" and word in verb_lines())


@pytest.mark.slow
@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.py")))
def test_an_example_runs_and_is_short(example, environment):
    path = ROOT / "examples" / example
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 30
    done = subprocess.run(
        [sys.executable, str(path)], env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


@pytest.mark.slow
def test_the_readme_python_runs(environment):
    for block in re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S):
        done = subprocess.run(
            [sys.executable, "-c", block], env=environment, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "Paris" in done.stdout


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"
    for path in re.findall(r"`((?:camelid|tests|docs|examples|benchmarks)/[\w/.]+\.\w+)`", text):
        assert (ROOT / path).exists() or "NAME" in path, f"{page.name} names {path}"


def test_the_project_stands_alone():
    """No page names a place on somebody's machine."""
    for page in PAGES:
        assert not re.search(r"(?<![\w.])/(home|root|work|tmp)/", page.read_text(encoding="utf-8")), page.name
