"""Figures that others have published, from `published.toml`: who says so, and under which conditions."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any


@dataclass(frozen=True)
class Published:
    """One figure.

    Attributes:
        model: as people write it.
        benchmark: as people write it.
        tasks: our task that is nearest; several: the figure is their mean.
        metric: ours that is nearest.
        value: a share of 1.
        source, url: who says so.
        source_notes: footnotes of all figures of this source.
        conditions: what the source states of shots, form, chat, average, samples, scorer.
        note: footnote of this figure; empty if it has none.
    """

    model: str
    benchmark: str
    tasks: tuple[str, ...]
    metric: str
    value: float
    source: str
    url: str
    source_notes: tuple[str, ...]
    conditions: Mapping[str, Any]
    note: str


@cache
def all_published() -> tuple[Published, ...]:
    """All figures, in the order of the file."""
    text = files("camelid.evals.cards").joinpath("published.toml").read_text(encoding="utf-8")
    table = tomllib.loads(text)
    return tuple(
        _figure(table["sources"][row["source"]], row, model, value)
        for row in table["figures"]
        for model, value in row["values"].items()
    )


def _figure(source: Mapping[str, Any], row: Mapping[str, Any], model: str, value: Any) -> Published:
    own = value if isinstance(value, dict) else {"value": value}
    task = row["task"]
    second_hand = f"Second-hand, {source['second_hand']}." if "second_hand" in source else None
    return Published(
        model=model,
        benchmark=row["benchmark"],
        tasks=tuple(task) if isinstance(task, list) else (task,),
        metric=own.get("metric", row["metric"]),
        value=round(own["value"] / 100, 6),
        source=source["title"],
        url=source["url"],
        source_notes=tuple(note for note in (source.get("note"), second_hand) if note),
        conditions={**row.get("conditions", {}), **own.get("conditions", {})},
        note=own.get("note", ""),
    )


def published_models() -> tuple[str, ...]:
    """Models that have a figure, as people write them."""
    return tuple(dict.fromkeys(figure.model for figure in all_published()))


def published_of(name: str) -> tuple[Published, ...]:
    """What is published of the model that a name, a file or a repository means, whatever its quantisation."""
    key = plain_name(name)
    return tuple(figure for figure in all_published() if plain_name(figure.model) == key)


_QUANT = re.compile(r"(\.gguf)?$|[-._](i?q\d\w*|bf16|fp?16|fp?32)(\.gguf)?$")


def plain_name(name: str) -> str:
    """Letters and digits of a model's name: `Llama 2 7B`, `llama2:7b` and `meta-llama/Llama-2-7b-hf` are one."""
    last = name.strip().rstrip("/").rpartition("/")[2].lower()
    last = _QUANT.sub("", last, count=1)
    last = re.sub(r"-(hf|meta)$", "", last.removeprefix("meta-"))
    return re.sub(r"[^a-z0-9]", "", last)
