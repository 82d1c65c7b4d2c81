"""Say what this machine offers, what camelid would use, and why."""

from __future__ import annotations

import math
import platform
import sys
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from camelid.cli.console import print_json
from camelid.cli.options import Json
from camelid.console import Terminal
from camelid.streams import literal

if TYPE_CHECKING:
    from camelid.busy import Busy

EXTRAS = {"torch": "train"}
REASONS = {
    "torch": "a CUDA GPU and torch are here",
    "cpu": "no CUDA GPU with torch here",
    "numpy": "no CUDA GPU with torch here, and the C++ engine is not built",
}


def run(*, json: Json = False) -> None:
    """Nothing is changed and nobody is asked."""
    findings = _findings()
    if json:
        print_json(findings)
        return
    from camelid.files import size_text

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in findings.items():
        if name == "busy":  # `load` says it in words
            continue
        if name.endswith("_bytes"):
            name, value = name.removesuffix("_bytes"), size_text(value)
        shown = ", ".join(f"{key} {part}" for key, part in value.items()) if isinstance(value, dict) else str(value)
        table.add_row(f"[dim]{name.replace('_', ' ')}[/]", literal(shown))
    Terminal().print(table)


def _findings() -> dict[str, Any]:
    from camelid import __version__
    from camelid.busy import look
    from camelid.engine.load import automatic, has_torch
    from camelid.files import free_bytes
    from camelid.hub.catalog import DEFAULT_MODEL, find
    from camelid.hub.store import home, is_local
    from camelid.machine import available_bytes, gpus, threads
    from camelid.tokens.choose_backend import has_bpe

    count, reason = threads()
    busy = look()
    place = home()
    torch = f"{version('torch')}" if has_torch() else f"not installed: pip install 'camelid[{EXTRAS['torch']}]'"
    return {
        "camelid": __version__,
        "python": f"{platform.python_version()} at {sys.executable}",
        "machine": f"{platform.system()} {platform.machine()}, {_processor()}",
        "instructions": _instructions(),
        "threads": count,
        "threads_set_by": reason,
        "load": "; ".join(busy.describe()) or "quiet",
        **_cost(busy, count),
        "busy": asdict(busy),
        "memory_available_bytes": available_bytes(),
        "gpu": "NVIDIA" if gpus() else "none",
        "torch": torch,
        "backend": automatic(),
        "backend_reason": REASONS[automatic()],
        "engine_instructions": " ".join(_instruction_sets()) or "the C++ engine is not built",
        "training_softmax": "C++" if find_spec("camelid.train._softmax") else "torch; the C++ part is not built",
        "tokenizer": "C++" if has_bpe() else "the tokenizers library; the C++ tokenizer is not built",
        "home": str(place),
        "home_free_bytes": free_bytes(place),
        "default_model": f"{DEFAULT_MODEL}, {'here' if is_local(find(DEFAULT_MODEL)) else 'not fetched yet'}",
        "libraries": _libraries(),
    }


def _cost(busy: Busy, threads: int) -> dict[str, str]:
    """What several threads bring beside a load: measured, by multiplying for a tenth of a second each."""
    sets = _instruction_sets()
    if threads < 2 or not busy.describe() or not sets:
        return {}
    from camelid.engine import _cpu

    taken = math.ceil((busy.others or 0) + (busy.stolen or 0))
    speeds = {n: _cpu.multiply_peak(sets[0], 0, n) for n in sorted({1, max(1, threads - taken), threads})}
    best = max(speeds, key=lambda n: speeds[n])
    advice = "" if best == threads else f"; --threads {best} computes more while it lasts"
    return {"load_costs": f"{threads} threads compute {speeds[threads] / speeds[1]:.1f} times as much as one{advice}"}


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or "unknown processor"


def _instructions() -> str:
    """The instruction sets that matter to engines, of those this processor has."""
    flags = set(_cpuinfo("flags").split())
    wanted = ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "asimd", "asimddp")
    return " ".join(name for name in wanted if name in flags) or "baseline"


def _instruction_sets() -> list[str]:
    """What the C++ engine can choose from here, its choice first."""
    from camelid.engine.load import has_cpu

    if not has_cpu():
        return []
    from camelid.engine.backend_cpu import instruction_sets

    return instruction_sets()


def _cpuinfo(name: str) -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    except OSError:
        pass
    return ""


def _libraries() -> dict[str, str]:
    versions = {}
    for name in ("numpy", "tokenizers", "llguidance", "huggingface-hub", "jinja2", "pydantic", "typer", "rich"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "missing"
    return versions
