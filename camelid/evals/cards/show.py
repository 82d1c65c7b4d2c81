"""A sheet on a terminal, and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from rich.table import Table

from camelid.console import Terminal
from camelid.evals.cards.sheet import Line, Note, Sheet
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


def missing_lines(sheet: Sheet) -> list[tuple[str, list[str]]]:
    """Model → lines about tasks that have no result: commands, or names where there is none."""
    found: list[tuple[str, list[str]]] = []
    for model in sheet.models:
        own = [(task, command) for each, task, command in sheet.missing if each == model]
        lines = _merged([(task, command) for task, command in own if command is not None])
        if any(command is None for _, command in own):
            lines.append("not in the catalog; camelid eval measures files of it with --model FILE")
        if lines:
            found.append((model, lines))
    return found


def _merged(commands: Sequence[tuple[str, str]]) -> list[str]:
    """One command for all tasks that need no data of the user's; one each for the others."""
    together = [each for each in commands if " --data " not in each[1]]
    alone = [command for _, command in commands if " --data " in command]
    if not together:
        return alone
    task, command = together[0]
    names = " ".join(name for name, _ in together)
    return [command.replace(f"eval {task} ", f"eval {names} ", 1), *alone]


def show_sheet(sheet: Sheet) -> None:
    """Print it."""
    console = Terminal()
    if not console.is_terminal:
        console.width = max(console.width, _WIDTH)
    if not sheet.several:
        console.print(f"[bold]{literal(sheet.models[0])}[/]", soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    right = ("shots", "figure", _INTERVAL, "items")
    for name in columns(sheet):
        fold = name in ("model", "published")
        justify: Literal["left", "right"] = "right" if name in right else "left"
        table.add_column(literal(name), justify=justify, overflow="fold", no_wrap=not fold)
    above = None
    for line in sheet.lines:
        table.add_row(*(literal(cell) for cell in cells(sheet, line, above)))
        above = line
    console.print(table)
    for number, note in enumerate(sheet.notes, 1):
        console.print(f"[dim]{literal(note_text(number, note))}[/]", soft_wrap=True)
    for title, url, text in sheet.sources:
        console.print(f"[dim]{literal(f'{title}, {url}. {text}'.strip())}[/]", soft_wrap=True)
    for remark in sheet.remarks:
        console.print(f"[dim]{literal(remark)}[/]", soft_wrap=True)
    for model, lines in missing_lines(sheet):
        console.print(f"\n{literal(model)} has no result of these:", soft_wrap=True)
        for text in lines:
            console.print(f"  {literal(text)}", soft_wrap=True)


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
    for model, texts in missing_lines(sheet):
        lines += [f"{_plain(model)} has no result of these:", "", *(f"    {text}" for text in texts), ""]
    return "\n".join(lines).rstrip() + "\n"


def _row(texts: list[str]) -> str:
    return f"| {' | '.join(_plain(text) for text in texts)} |"


def _plain(text: str) -> str:
    r"""Text without meaning to Markdown: names of models come from others."""
    for letter in "\\`*_<>|[]#":
        text = text.replace(letter, f"\\{letter}")
    return " ".join(text.split())
