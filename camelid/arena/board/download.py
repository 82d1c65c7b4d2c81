"""A board to take away: CSV, JSON, Parquet."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from camelid.arena.board.boards import Shown
from camelid.arena.board.table import Line
from camelid.errors import MissingError

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def rows_of(lines: Sequence[Line]) -> list[dict[str, Any]]:
    """A row a model, with what the page shows, in full numbers."""
    tasks = list(dict.fromkeys(task for line in lines for task in line.figures))
    return [
        {
            "rank": line.rank,
            "model": line.name,
            "rating": line.rating,
            "lower": line.lower,
            "upper": line.upper,
            "votes": line.votes,
            "organisation": line.facts.organisation,
            "licence": line.facts.licence,
            "cutoff": line.facts.cutoff,
            **{task: line.figures[task][0] if task in line.figures else None for task in tasks},
        }
        for line in lines
    ]


def as_csv(shown: Shown, lines: Sequence[Line]) -> bytes:
    """With a head line. Text that a spreadsheet would run as a formula gets an apostrophe before it."""
    rows, out = rows_of(lines), io.StringIO()
    writer = csv.DictWriter(out, list(rows[0]) if rows else ["rank", "model"])
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _safe(value) for name, value in row.items()})
    return out.getvalue().encode()


def _safe(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def as_json(shown: Shown, lines: Sequence[Line]) -> bytes:
    """What `camelid arena rate --json` prints, for these models, with what is known of them."""
    record = {
        **shown.board.as_json(),
        "category": shown.choice.category or "overall",
        "style": shown.choice.style,
        "read": shown.votes.read,
        "models": [{"name": row.pop("model"), **row} for row in rows_of(lines)],
    }
    return json.dumps(record, ensure_ascii=False, indent=1).encode() + b"\n"


def as_parquet(shown: Shown, lines: Sequence[Line]) -> bytes:
    """The rows as columns.

    Raises:
        MissingError: pyarrow is not installed.
    """
    try:
        import pyarrow as arrow
        import pyarrow.parquet as parquet
    except ImportError:
        raise MissingError("Parquet needs pyarrow: pip install 'camelid[data]'; CSV and JSON go without") from None
    out = io.BytesIO()
    parquet.write_table(arrow.Table.from_pylist(rows_of(lines)), out)
    return out.getvalue()


FORMS: dict[str, tuple[str, Callable[[Shown, Sequence[Line]], bytes]]] = {
    "csv": ("text/csv; charset=utf-8", as_csv),
    "json": ("application/json", as_json),
    "parquet": ("application/vnd.apache.parquet", as_parquet),
}
"""Ending → media type, and what writes it."""
