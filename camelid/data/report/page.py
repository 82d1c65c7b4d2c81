"""A report on data as one HTML page: nothing from elsewhere, no scripts, light and dark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from camelid.errors import ResourceError
from camelid.files import size_text, whole_file

TEMPLATE = "report.html"
_WIDTH, _HEIGHT = 320, 120  # of a histogram's bars


@dataclass(frozen=True)
class Bar:
    """A bar of a histogram, in the units of its picture."""

    x: float
    y: float
    width: float
    height: float
    first: int
    last: int
    count: int


def write_page(report: Mapping[str, Any], path: Path) -> None:
    """Write the page, complete or not at all.

    Raises:
        ResourceError: it cannot be written there.
    """
    text = page(report).encode()
    try:
        with whole_file(path) as file:
            file.write(text)
    except OSError as error:
        raise ResourceError(f"{path}: cannot be written ({error.strerror}); check the folder") from None


def page(report: Mapping[str, Any]) -> str:
    """The page of what `report` found. Texts of documents are shown as text, whatever is in them."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "size": size_text, "share": share, "short": short}
    histograms = [(name, spread, bars(spread["bins"])) for name, spread in report["lengths"].items()]
    shape = {"width": _WIDTH, "height": _HEIGHT}
    flow = stages(report["stages"])
    return environment.get_template(TEMPLATE).render(report=report, histograms=histograms, shape=shape, flow=flow)


def bars(bins: Sequence[Sequence[int]]) -> list[Bar]:
    """A histogram's bars, from the first bin that has something to the last."""
    full = [place for place, (_, _, count) in enumerate(bins) if count]
    if not full:
        return []
    shown = bins[full[0] : full[-1] + 1]
    most, width = max(count for _, _, count in shown), _WIDTH / len(shown)
    made = []
    for place, (first, last, count) in enumerate(shown):
        height = max(1.0, _HEIGHT * count / most) if count else 0.0
        made.append(Bar(place * width + 1, _HEIGHT - height, max(1.0, width - 2), height, first, last, count))
    return made


def stages(reports: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Stages with what each left, as shares of the documents of the first."""
    most = max((stage["documents_in"] for stage in reports), default=0) or 1
    rows = []
    for stage in reports:
        reasons = sorted(stage["dropped"].items(), key=lambda row: (-row[1], row[0]))
        rows.append(
            {
                **stage,
                "stays": 100 * stage["documents_out"] / most,
                "goes": 100 * (stage["documents_in"] - stage["documents_out"]) / most,
                "reasons": [(reason, count, stage["examples"].get(reason, [])) for reason, count in reasons],
                "changes": [
                    (what, times, stage["examples"].get(what, [])) for what, times in sorted(stage["changed"].items())
                ],
            }
        )
    return rows


def number(value: float | None) -> str:
    """1,234 or 12.3."""
    if value is None:
        return "—"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def short(value: float) -> str:
    """As the end of an axis: 950, 4.1k, 1.2M, 7.0B."""
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if value >= unit:
            return f"{value / unit:.1f}{name}"
    return f"{value:,.0f}"


def share(part: float, whole: float) -> str:
    """A part in per cent."""
    return f"{100 * part / whole:.1f} %" if whole else "—"
