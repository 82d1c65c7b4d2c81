"""Record the README's terminal pictures: real commands in a real terminal (tmux), drawn as SVG.

    python docs/pictures/record.py

Needs tmux, and the default model fetched. The SVG names no font from the network.
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text

HERE = Path(__file__).parent
SESSION = "camelid-pictures"
PROGRAM = f"{Path(sys.executable).parent}/camelid"
PICTURES = {
    "next": (90, 20, ['camelid next "The best thing about AI is its ability to"'], "probability"),
    "chat": (
        90,
        26,
        [
            "camelid chat --temperature 0",
            "What is the capital of France?",
            "Write a Python one-liner that sums a list.",
        ],
        "",
    ),
}


def tmux(*arguments: str) -> str:
    return subprocess.run(["tmux", *arguments], check=True, capture_output=True, text=True).stdout


def settle(seconds: float = 2.0, limit: float = 90.0) -> None:
    """Wait until the screen has not changed for a while."""
    before, since, started = "", time.monotonic(), time.monotonic()
    while time.monotonic() - since < seconds and time.monotonic() - started < limit:
        time.sleep(0.2)
        now = tmux("capture-pane", "-p", "-t", SESSION)
        if now != before:
            before, since = now, time.monotonic()


def record(name: str, width: int, height: int, lines: list[str]) -> None:
    tmux("new-session", "-d", "-s", SESSION, "-x", str(width), "-y", str(height), "env", "PS1=$ ", "bash", "--norc")
    try:
        tmux("send-keys", "-t", SESSION, f'camelid() {{ {PROGRAM} "$@"; }}; clear', "Enter")
        settle(1)
        for line in lines:
            tmux("send-keys", "-t", SESSION, "-l", line)
            tmux("send-keys", "-t", SESSION, "Enter")
            settle(5)
        screen = tmux("capture-pane", "-e", "-p", "-t", SESSION).rstrip()
    finally:
        tmux("kill-session", "-t", SESSION)
    console = Console(record=True, width=width, file=open("/dev/null", "w"))  # noqa: PTH123, SIM115
    console.print(Text.from_ansi(screen))
    svg = console.export_svg(title=f"camelid {name}")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.S)
    (HERE / f"{name}.svg").write_text(svg, encoding="utf-8")


def main() -> None:
    for name, (width, height, lines, _) in PICTURES.items():
        record(name, width, height, lines)
        print(HERE / f"{name}.svg")  # noqa: T201


if __name__ == "__main__":
    main()
