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

    found = describe(open_weights(resolve(model) if model else fetch_default()), hashes)
    if json:
        print_json(found)
    else:
        _show(found)


def _show(found: dict[str, Any]) -> None:
    shape, tokenizer = found["shape"], found["tokenizer"]
    heads = f"{shape['n_heads']} heads sharing {shape['n_kv_heads']} keys/values, {shape['head_dim']} wide"
    scaling = shape["rope_scaling"]
    rule = f"{scaling['rule']} × {scaling['factor']:g}".removesuffix(" × 1") if scaling else ""
    rows = {
        "family": found["family"] or f"a {found['architecture']} of no known shape",
        "path": found["path"],
        "format": found["format"],
        "parameters": f"{found['parameters']:,}",
        "shape": f"{shape['n_layers']} layers, {shape['dim']} wide, feed-forward {shape['ffn_dim']}",
        "attention": heads,
        "vocabulary": f"{shape['vocab_size']:,}" + (", tied to the output" if shape["ties_embeddings"] else ""),
        "context": f"{shape['context']:,} tokens; cache {found['cache_bytes_per_token']:,} bytes a token at 16 bits",
        "rotary base": f"{shape['rope_theta']:g}" + (f", {rule}" if scaling else ""),
        "numbers": ", ".join(f"{count} × {kind}" for kind, count in found["quants"].items()),
        "size": f"{found['bytes']:,} bytes, {found['bits_per_weight']} bits a weight",
        "tokenizer": f"{tokenizer['kind']}, {tokenizer['size']:,} ids, fingerprint {tokenizer['fingerprint'][:16]}"
        if tokenizer
        else "none",
        "stops at": ", ".join(str(id) for id in found["stop_ids"]) or "no id",
        "chat format": found["chat_format"] or "none in the files; name one with --chat-format",
        "sampling": ", ".join(f"{name} {_short(value)}" for name, value in found["sampling"].items())
        or "no recommendation",
    }
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(f"[dim]{name}[/]", literal(str(value)))
    for file in found["files"]:
        digest = f"  sha256 {found['hashes'][file['name']]}" if file["name"] in found["hashes"] else ""
        table.add_row("[dim]file[/]", f"{literal(file['name'])}  {file['bytes']:,} bytes{digest}")
    Terminal().print(table)


def _short(value: Any) -> str:
    """A number, or how many there are of what is not one."""
    return f"{value:g}" if isinstance(value, int | float) else f"of {len(value)}"
