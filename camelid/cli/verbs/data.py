"""Report on prepared data, show a row of it, or check its hashes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from camelid.cli.console import print_json, progress_bar, stderr
from camelid.cli.options import Json
from camelid.errors import OptionError, one_of
from camelid.streams import literal, write

if TYPE_CHECKING:
    from rich.table import Table

    from camelid.data.options import DecontaminateOptions

WHAT = ("report", "show", "verify")


def run(
    what: Annotated[str, typer.Argument(metavar="report|show|verify", help="What to do.", show_default=False)],
    folder: Annotated[
        Path,
        typer.Argument(help="A run, as runs/tiny, one of its stages, or the data; or a recipe.", show_default=False),
    ],
    *,
    stage: Annotated[str | None, typer.Option(help="Data of this stage of the run, as sft.")] = None,
    html: Annotated[Path | None, typer.Option(help="report: write a page too.")] = None,
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE[:FIELDS]", help="report: test items to look for; fields with commas."),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="report: processes.")] = 1,
    sample: Annotated[
        int, typer.Option("--sample", "--row", min=0, help="show: number of the row, in the order of training.")
    ] = 0,
    context: Annotated[
        int | None, typer.Option(min=1, help="show: tokens of a row; 256, or as conversations were prepared.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="show: seed of the order; the recipe's if left out.")] = None,
    json: Json = False,
) -> None:
    """`report`: counts, lengths, words in a row, domains, languages, personal details, what was dropped and why.

    `show`: one row as training sees it. A document begins where the colour changes; what is struck out is not learned.
    Of conversations, preferences and prompts, what is learned has a colour, and what is only read has none.

    `verify`: are all tokens, documents' records and the tokenizer what they were when they were made?
    """
    from camelid.data.report.report import find_data

    if what not in WHAT:
        raise OptionError(f"data: no {what!r}; {one_of(what, WHAT)}")
    data = find_data(_run_of(folder), stage)
    if what == "show":
        from camelid.cli.chat_rows import show_chats
        from camelid.data.manifest import read_manifest

        if read_manifest(data).chats is None:
            _show(data, sample, context or 256, seed, json)
        else:
            show_chats(data, sample, context, seed, json)
        return
    if what == "verify":
        _verify(data, json)
        return
    from camelid.data.report.report import report

    with progress_bar() as show:
        result = report(data, _items(against or []), workers, show)
    if html is not None:
        from camelid.data.report.page import write_page

        write_page(result, html)
        stderr.print(literal(str(html)))
    if json:
        print_json(result)
    else:
        _print(result)


def _run_of(folder: Path) -> Path:
    """The run of a recipe, where it is one: a file, or the name of one that comes with camelid."""
    from camelid.recipe import read_recipe, shipped_recipes
    from camelid.run_layout import RUNS

    is_recipe = folder.is_file() or (not folder.exists() and str(folder) in shipped_recipes())
    return Path(RUNS) / read_recipe(folder).name if is_recipe else folder


def _verify(data: Path, json: bool) -> None:
    from camelid.data.manifest import read_manifest

    manifest = read_manifest(data)
    manifest.verify(data)
    if json:
        print_json({"fingerprint": manifest.fingerprint(), "shards": len(manifest.shards)})
    else:
        shards = f"{len(manifest.shards)} shards and the tokenizer are as on record"
        write(f"{data}: {shards}; data {manifest.fingerprint()}\n")


def _items(against: list[str]) -> DecontaminateOptions:
    from camelid.data.options import DecontaminateOptions, EvaluationFile

    files = []
    for item in against:
        path, _, fields = item.partition(":")
        files.append(EvaluationFile(path=path, fields=tuple(filter(None, fields.split(",")))))
    return DecontaminateOptions(against=tuple(files))


def _print(report: dict[str, Any]) -> None:
    from rich.columns import Columns

    from camelid.console import Terminal
    from camelid.data.report.page import share
    from camelid.files import size_text

    console = Terminal()
    lengths = report["lengths"]
    sizes = f"{size_text(report['bytes'])}, {lengths['words']['total']:,} words, {lengths['tokens']['total']:,} tokens"
    console.print(f"[bold]{report['documents']:,} documents[/], {sizes}")
    console.print(_sources(report["sources"]))
    if chats := report.get("chats"):
        layouts = ", ".join(f"{source} as {layout}" for source, layout in chats["layouts"].items())
        told = f"{chats['form']} by {chats['chat_format']}, context {chats['context']:,}; read {layouts}"
        console.print(
            literal(f"{told}; {share(chats['learned_tokens'], lengths['tokens']['total'])} of tokens learned.")
        )
    rows = []
    for stage in report["stages"]:
        most = sorted(stage["dropped"].items(), key=lambda row: (-row[1], row[0]))
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in most)
        rows.append((stage["name"], f"{stage['documents_in']:,}", f"{stage['documents_out']:,}", reasons))
    console.print(_table(("stage", "in", "out", "dropped"), rows, last_left=True))
    spreads = [(name, *(f"{length[key]:,}" for key in ("least", "mean", "most"))) for name, length in lengths.items()]
    console.print(_table(("of a document", "least", "mean", "most"), spreads))
    grams = []
    for ngram in report["ngrams"]:
        title = "words" if ngram["n"] == 1 else f"{ngram['n']} words in a row"
        grams.append(_table((title, "times"), [(row["text"], f"{row['count']:,}") for row in ngram["rows"][:8]]))
    console.print(Columns(grams, padding=(0, 4)))
    tallies = [("domains", "domain"), ("top_level", "ending"), ("languages", "language"), ("licences", "licence")]
    shown = [
        _table((title, "documents"), [(row["name"], f"{row['documents']:,}") for row in report[name]["rows"][:8]])
        for name, title in tallies
        if report[name]["rows"]
    ]
    console.print(Columns(shown, padding=(0, 4)))
    details, twice = report["personal_details"], report["duplicates"]
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in details["kinds"].items()) or "none"
    console.print(f"Personal details: {kinds}, in {share(details['documents'], report['documents'])} of documents.")
    console.print(f"Twice: {twice['exact']['repeated']:,} texts, {twice['url']['repeated']:,} URLs.")
    for row in (report["tests"] or {"rows": []})["rows"]:
        counts = f"{row['found']:,} of {row['items']:,} items in {row['documents']:,} documents"
        console.print(f"Test items of {literal(row['name'])}: {counts}.")


def _sources(sources: list[dict[str, Any]]) -> Table:
    from camelid.files import size_text

    rows = []
    for source in sources:
        counts = (
            f"{source['documents']:,}",
            f"{source['validation_documents']:,}",
            size_text(source["bytes"]),
            f"{source['tokens']:,}",
            f"{100 * source['share']:.1f} %",
        )
        rows.append((source["name"], *counts, source["licence"] or "not named"))
    head = ("source", "documents", "for validation", "text", "tokens", "share", "licence")
    return _table(head, rows, last_left=True)


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]], last_left: bool = False) -> Table:
    from rich.table import Table

    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", title_justify="left")
    for place, name in enumerate(head):
        left = place == 0 or (last_left and place == len(head) - 1)
        table.add_column(name, justify="left" if left else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(literal, row))
    return table


def _show(data: Path, sample: int, context: int, seed: int | None, json: bool) -> None:
    from camelid.cli.verbs.next import visible
    from camelid.cli.verbs.tokens import COLOURS
    from camelid.console import Terminal
    from camelid.data.batches import IGNORED, Batches
    from camelid.data.manifest import read_manifest

    batches = Batches(data, context, 1, read_manifest(data).seed if seed is None else seed)
    batch, [pieces] = batches.step(sample), batches.rows_of(sample)
    # A token is learned where it is a target: not the first of a document, nor of the row, which the row before has.
    learned = [False, *(batch.targets[0][:-1] != IGNORED).tolist()]
    if json:
        shown = {"sample": sample, "pieces": pieces, "ids": batch.ids[0].tolist(), "learned": learned}
        print_json({**shown, "documents": batch.documents[0].tolist()})
        return
    console = Terminal()
    for number, piece in enumerate(pieces):
        colour = COLOURS[number % len(COLOURS)]
        where = f"tokens {piece['start']:,} to {piece['stop']:,} of {piece['tokens']:,}"
        console.print(f"[{colour}] {number} [/] {literal(piece['id'])} [dim]{where}[/]", soft_wrap=True)
    parts = []
    for id, document, target in zip(batch.ids[0].tolist(), batch.documents[0].tolist(), learned, strict=True):
        style = COLOURS[document % len(COLOURS)] + ("" if target else " strike")
        parts.append(f"[{style}]{literal(visible(batches.tokenizer.piece(id)))}[/]")
    console.print("".join(parts))
    console.print(f"[dim]{context} tokens; struck out: {context - sum(learned)} that are only read[/]")
