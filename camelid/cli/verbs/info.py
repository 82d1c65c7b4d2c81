"""Show what a model is: family, shape, kinds of numbers, chat format, hashes."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from camelid.cli.console import print_json
from camelid.cli.options import Json, ModelName, fetch_default
from camelid.console import Terminal
from camelid.streams import literal


def run(
    model: ModelName = None,
    *,
    hashes: Annotated[bool, typer.Option(help="Read all files for their SHA-256.")] = True,
    json: Json = False,
) -> None:
    """Reads the files only; the model is not run."""
    from camelid.chat.inspect import describe
    from camelid.hub.store import resolve
    from camelid.weights.open import open_weights

    description = describe(open_weights(resolve(model) if model else fetch_default()), hashes)
    if json:
        print_json(description)
    else:
        _show(description)


def _show(description: dict[str, Any]) -> None:
    shape, tokenizer = description["shape"], description["tokenizer"]
    heads = f"{shape['n_heads']} heads sharing {shape['n_kv_heads']} keys/values, {shape['head_dim']} wide"
    scaling = shape["rope_scaling"]
    rule = f"{scaling['rule']} × {scaling['factor']:g}".removesuffix(" × 1") if scaling else ""
    cache = description["cache_bytes_per_token"]
    rows = {
        "family": description["family"] or f"a {description['architecture']} of no known shape",
        "path": description["path"],
        "format": description["format"],
        "parameters": f"{description['parameters']:,}",
        "shape": f"{shape['n_layers']} layers, {shape['dim']} wide, feed-forward {shape['ffn_dim']}",
        "attention": heads,
        "vocabulary": f"{shape['vocab_size']:,}" + (", tied to the output" if shape["ties_embeddings"] else ""),
        "context": f"{shape['context']:,} tokens; cache {cache:,} bytes a token at 16 bits",
        "rotary base": f"{shape['rope_theta']:g}" + (f", {rule}" if scaling else ""),
        "numbers": ", ".join(f"{count} × {kind}" for kind, count in description["quants"].items()),
        "size": f"{description['bytes']:,} bytes, {description['bits_per_weight']} bits a weight",
        "tokenizer": f"{tokenizer['kind']}, {tokenizer['size']:,} ids, fingerprint {tokenizer['fingerprint'][:16]}"
        if tokenizer
        else "none",
        "stops at": ", ".join(str(id) for id in description["stop_ids"]) or "no id",
        "chat format": description["chat_format"] or "none in the files; name one with --chat-format",
        "sampling": ", ".join(f"{name} {_short(value)}" for name, value in description["sampling"].items())
        or "no recommendation",
    }
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(f"[dim]{name}[/]", literal(str(value)))
    for file in description["files"]:
        digest = f"  sha256 {description['hashes'][file['name']]}" if file["name"] in description["hashes"] else ""
        table.add_row("[dim]file[/]", f"{literal(file['name'])}  {file['bytes']:,} bytes{digest}")
    Terminal().print(table)


def _short(value: Any) -> str:
    """A number, or how many there are of what is not one."""
    return f"{value:g}" if isinstance(value, int | float) else f"of {len(value)}"
