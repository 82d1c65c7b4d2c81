"""List the models that have a name: what is gated, what is here."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from camelid.cli.console import print_json
from camelid.cli.options import Json
from camelid.console import Terminal


def run(
    family: Annotated[str | None, typer.Argument(help="Only names that begin so, as llama2.")] = None,
    *,
    local: Annotated[bool, typer.Option("--local", help="Only those on this machine.")] = False,
    json: Json = False,
) -> None:
    """Any other repository of the hub can be pulled as hf:owner/repo."""
    rows = [row for row in _rows() if row["name"].startswith(family or "") and (row["local"] or not local)]
    if json:
        print_json({"models": rows})
        return
    table = Table(box=None, padding=(0, 1, 0, 0))
    for name in ("name", "model", "size", "GB", "access", "here"):
        table.add_column(name, justify="right" if name in ("size", "GB") else "left", no_wrap=True)
    for row in rows:
        table.add_row(
            f"[bold]{row['name']}[/]",
            row["title"],
            _billions(row["parameters"]),
            f"{row['bytes'] / 1e9:,.1f}",
            "[yellow]gated[/]" if row["gated"] else "open",
            "[green]yes[/]" if row["local"] else "",
        )
    console = Terminal()
    console.print(table)
    console.print(
        "\n[dim]-meta names Meta's own format; gated: accept the licence on the model's page and have a token\n"
        "camelid pull NAME fetches one; hf:owner/repo, a URL or a local path work too[/]"
    )


def _rows() -> list[dict[str, Any]]:
    from camelid.hub.catalog import CATALOG, Hub
    from camelid.hub.store import is_local
    from camelid.model.family import FAMILY

    return [
        {
            "name": entry.name,
            "title": entry.title,
            "kind": entry.kind,
            "format": entry.source.format if isinstance(entry.source, Hub) else "gguf",
            "source": str(entry.source),
            "parameters": FAMILY[entry.title].config.n_parameters,
            "bytes": entry.size,
            "gated": entry.gated,
            "licence": entry.licence,
            "note": entry.note,
            "local": is_local(entry),
        }
        for entry in CATALOG.values()
    ]


def _billions(count: int) -> str:
    return f"{count / 1e9:.2f}B" if count >= 1e9 else f"{count / 1e6:.0f}M"
