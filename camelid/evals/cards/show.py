"""A sheet on a terminal, and as Markdown."""

from __future__ import annotations

from typing import Literal

from rich.table import Table

from camelid.console import Terminal
from camelid.evals.cards.sheet import NONE, Line, Note, Sheet
from camelid.streams import literal

_INTERVAL = "95 % interval"
_WIDTH = 120  # letters of a line where nobody says how wide it may be, as in a pipe


def columns(sheet: Sheet) -> list[str]:
    """Heads of the table."""
    models = ["model"] if sheet.several else []
    differences = [f"less {sheet.models[0]}", ""] if any(line.difference for line in sheet.lines) else []
    return ["task", "shots", "metric", *models, "figure", _INTERVAL, "items", *differences, "published"]


def cells(sheet: Sheet, line: Line, above: Line | None) -> list[str]:
    """Of a line, as `columns`; what stands above already is left empty."""
    same = above is not None and (line.task, line.shots) == (above.task, above.shots)
    repeated = same and above is not None and line.metric == above.metric
    first = ["" if same else line.task, "" if same else line.shots, "" if repeated else line.metric]
    models = [line.model] if sheet.several else []
    differences = [line.difference, line.verdict] if any(each.difference for each in sheet.lines) else []
    published = ", ".join(f"{text} [{number}]" for text, number in line.published)
    return [*first, *models, line.figure, line.interval, line.items, *differences, published]


def note_text(number: int, note: Note) -> str:
    """A footnote on a line."""
    return f"[{number}] {note.title}{''.join(f'; {text}' for text in note.lines)}"


def missing_lines(sheet: Sheet) -> list[tuple[str, tuple[str, ...]]]:
    """What is said of results that lack, and the commands that make them."""
    found = []
    for models, commands in sheet.missing:
        verb = "has" if len(models) == 1 else "have"
        says = f"{verb} no results of some tasks" if commands else "is not in the catalog: --model takes its files"
        found.append((f"{', '.join(models)} {says}", commands))
    return found


def show_sheet(sheet: Sheet) -> None:
    """Print it."""
    console = Terminal()
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    if not sheet.several:
        console.print(f"[bold]{literal(sheet.models[0])}[/]", soft_wrap=True)
    console.print(_below_one_another(sheet) if sheet.several else _table(sheet))
    if any(line.difference for line in sheet.lines):
        told = f"difference: less {sheet.models[0]}, on the same items, with its 95 % interval"
        console.print(f"[dim]{literal(told)}[/]", soft_wrap=True)
    for number, note in enumerate(sheet.notes, 1):
        console.print(f"[dim]{literal(note_text(number, note))}[/]", soft_wrap=True)
    for title, url, text in sheet.sources:
        console.print(f"[dim]{literal(f'{title}, {url}. {text}'.strip())}[/]", soft_wrap=True)
    for remark in sheet.remarks:
        console.print(f"[dim]{literal(remark)}[/]", soft_wrap=True)
    for title, commands in missing_lines(sheet):
        console.print(f"\n{literal(title)}", soft_wrap=True)
        for text in commands:
            console.print(f"  {literal(text)}", soft_wrap=True)


def _table(sheet: Sheet) -> Table:
    table = _empty(columns(sheet))
    above = None
    for line in sheet.lines:
        table.add_row(*(literal(cell) for cell in cells(sheet, line, above)))
        above = line
    return table


def _below_one_another(sheet: Sheet) -> Table:
    """A heading a metric, and its models below: models' names are long."""
    heads = columns(sheet)[3:]
    differences = len(heads) == 7
    table = _empty(["", *heads[1:4], *(["difference", ""] if differences else []), heads[-1]])
    above = None
    for line in sheet.lines:
        if above is None or (line.task, line.shots, line.metric) != (above.task, above.shots, above.metric):
            shots = "" if line.shots == NONE else f"{line.shots} shots, "
            table.add_row(f"[bold]{literal(line.task)}[/] [dim]{shots}{literal(line.metric)}[/]")
        _, _, _, model, *rest = cells(sheet, line, None)
        table.add_row(f"  {literal(model)}", *(literal(cell) for cell in rest))
        above = line
    return table


def _empty(heads: list[str]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name in heads:
        justify: Literal["left", "right"] = "right" if name in ("shots", "figure", _INTERVAL, "items") else "left"
        table.add_column(literal(name), justify=justify, overflow="fold", no_wrap=name != "published")
    return table


def as_markdown(sheet: Sheet) -> str:
    """The same as Markdown."""
    heads = columns(sheet)
    lines = [f"# {_plain(', '.join(sheet.models))}", "", _row(heads), _row(["---"] * len(heads))]
    above = None
    for line in sheet.lines:
        lines.append(_row(cells(sheet, line, above)))
        above = line
    lines += ["", "Figures are in percent where they are shares; intervals are those of the bootstrap.", ""]
    for number, note in enumerate(sheet.notes, 1):
        lines += [_plain(note_text(number, note)), ""]
    lines += [text for title, url, told in sheet.sources for text in (f"{_plain(title)}, <{url}>. {_plain(told)}", "")]
    lines += [text for remark in sheet.remarks for text in (_plain(remark), "")]
    for title, commands in missing_lines(sheet):
        lines += [_plain(title), "", *(f"    {text}" for text in commands), ""]
    return "\n".join(lines).rstrip() + "\n"


def _row(texts: list[str]) -> str:
    return f"| {' | '.join(_plain(text) for text in texts)} |"


def _plain(text: str) -> str:
    r"""Text without meaning to Markdown: names of models come from others."""
    for letter in "\\`*_<>|[]#":
        text = text.replace(letter, f"\\{letter}")
    return " ".join(text.split())
