"""A sheet as one HTML file: no script, nothing from elsewhere, light and dark as the reader has it."""

from __future__ import annotations

from html import escape

from camelid.evals.cards.sheet import Line, Note, Sheet
from camelid.evals.cards.show import missing_lines

_STYLE = """
:root { color-scheme: light dark; --paper: #fbfaf7; --ink: #1c1e21; --muted: #5b5e63; --line: #e1ddd4;
  --bar: #0f5c63; --track: #ece8df; --mark: #a8324e; }
@media (prefers-color-scheme: dark) { :root { --paper: #15171a; --ink: #e9e7e2; --muted: #a3a6ab; --line: #2e3237;
  --bar: #79c9c6; --track: #24282d; --mark: #ff9d96; } }
body { margin: 0 auto; max-width: 82rem; padding: 1.5rem 1rem 3rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", Arial, sans-serif; }
h1 { font-size: 1.5rem; margin: 0 0 0.25rem; overflow-wrap: anywhere; } h2 { font-size: 1.1rem; margin: 2rem 0 0.5rem; }
caption { position: absolute; clip-path: inset(50%); width: 1px; height: 1px; overflow: hidden; }
p, .muted { color: var(--muted); }
a { color: inherit; } .wide { overflow-x: auto; } table { border-collapse: collapse; width: 100%; }
th, td { padding: 0.35rem 0.9rem 0.35rem 0; text-align: left; vertical-align: middle; font-weight: 400;
  white-space: nowrap; }
thead th { color: var(--muted); font-size: 0.8125rem; font-weight: 600; border-bottom: 1px solid var(--line); }
tbody th[scope=rowgroup] { font-weight: 600; vertical-align: top; } tbody { border-bottom: 1px solid var(--line); }
.number { text-align: right; font-variant-numeric: tabular-nums; } strong { font-weight: 650; }
.model { white-space: normal; overflow-wrap: anywhere; min-width: 9rem; } th[rowspan] { vertical-align: top; }
svg { display: block; width: 8rem; height: 1.1rem; }
.track { fill: var(--track); } .bar { fill: var(--bar); opacity: 0.55; }
.whisker { stroke: var(--ink); stroke-width: 1.5; }
.mark { stroke: var(--mark); stroke-width: 2; stroke-dasharray: 2 2; }
ol { padding-left: 1.5rem; } li { margin: 0.4rem 0; overflow-wrap: anywhere; }
li:target { outline: 2px solid var(--bar); }
code { font: 0.875rem/1.5 ui-monospace, Menlo, Consolas, "Liberation Mono", monospace; overflow-wrap: anywhere; }
:focus-visible { outline: 2px solid var(--bar); outline-offset: 2px; }
@media print { body { max-width: none; } }
"""
_READING = (
    "Shares are in percent. Bars are ours, with the 95 % interval of the bootstrap; a dashed line is a published "
    "figure, whose footnote says what differs."
)


def as_html(sheet: Sheet) -> str:
    """The whole file."""
    title = f"{escape(', '.join(sheet.models))} – score card"
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{title}</title>\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<style>{_STYLE}</style>\n</head>\n'
        f"<body>\n<main>\n<h1>{escape(', '.join(sheet.models))}</h1>\n<p>{_READING}</p>\n"
        f"{_table(sheet)}\n{_notes(sheet)}\n{_missing(sheet)}\n</main>\n</body>\n</html>\n"
    )


def _table(sheet: Sheet) -> str:
    differences = any(line.difference for line in sheet.lines)
    heads = ["task", "metric", *(["model"] if sheet.several else [])]
    numbers = ["figure", "95 % interval", "items"]
    row = "".join(f'<th scope="col">{name}</th>' for name in heads)
    row += "".join(f'<th scope="col" class="number">{name}</th>' for name in numbers)
    row += '<th scope="col" aria-hidden="true">0 to 100 %</th>'
    if differences:
        row += f'<th scope="col">less {escape(sheet.models[0])}</th>'
    row += '<th scope="col">published</th>'
    bodies = []
    start = 0
    for at in range(1, len(sheet.lines) + 1):
        if at == len(sheet.lines) or _task(sheet.lines[at]) != _task(sheet.lines[start]):
            bodies.append(_body(sheet, sheet.lines[start:at], differences))
            start = at
    return (
        f'<div class="wide" role="region" aria-label="Figures" tabindex="0">\n<table>\n'
        f"<caption>Figures by task and metric</caption>\n<thead><tr>{row}</tr></thead>\n"
        f"{''.join(bodies)}</table>\n</div>"
    )


def _task(line: Line) -> tuple[str, str]:
    return line.task, line.shots


def _body(sheet: Sheet, lines: tuple[Line, ...], differences: bool) -> str:
    first = lines[0]
    shots = "" if first.figure == "–" and first.shots == "–" else f'<br><span class="muted">{first.shots} shots</span>'
    rows = []
    for at, line in enumerate(lines):
        cells = ""
        if at == 0:
            cells = f'<th scope="rowgroup" rowspan="{len(lines)}">{escape(line.task)}{shots}</th>'
        if at == 0 or line.metric != lines[at - 1].metric:
            count = sum(each.metric == line.metric for each in lines)
            cells += f'<th scope="row" rowspan="{count}">{escape(line.metric)}</th>'
        if sheet.several:
            cells += f'<th scope="row" class="model">{escape(line.model)}</th>'
        figure = f"<strong>{escape(line.figure)}</strong>" if line.own else '<span class="muted">no result</span>'
        cells += f'<td class="number">{figure}</td><td class="number">{escape(line.interval)}</td>'
        cells += f'<td class="number">{escape(line.items)}</td><td>{_bar(line)}</td>'
        if differences:
            verdict = f'<br><span class="muted">{line.verdict}</span>' if line.verdict else ""
            cells += f"<td>{escape(line.difference)}{verdict}</td>"
        published = ", ".join(
            f'{text}<sup><a href="#note{number}" aria-label="footnote {number}">{number}</a></sup>'
            for text, number in line.published
        )
        rows.append(f"<tr>{cells}<td>{published}</td></tr>\n")
    return f"<tbody>\n{''.join(rows)}</tbody>\n"


def _bar(line: Line) -> str:
    """A bar from 0 to 100 % with its interval, and a mark for each published figure; the numbers stand beside it."""
    if not line.percent or (line.own is None and not line.marks):
        return ""
    parts = ['<rect class="track" x="0" y="4" width="200" height="10" rx="2"/>']
    if line.own is not None:
        parts.append(f'<rect class="bar" x="0" y="4" width="{_at(line.own.value)}" height="10" rx="2"/>')
        if line.own.low is not None and line.own.high is not None:
            low, high = _at(line.own.low), _at(line.own.high)
            parts.append(f'<path class="whisker" d="M{low} 9H{high}M{low} 5V13M{high} 5V13"/>')
    parts += [f'<path class="mark" d="M{_at(mark)} 0V18"/>' for mark in line.marks]
    return (
        f'<svg viewBox="0 0 200 18" preserveAspectRatio="none" aria-hidden="true" focusable="false">'
        f"{''.join(parts)}</svg>"
    )


def _at(share: float) -> str:
    return f"{200 * min(1.0, max(0.0, share)):.1f}"


def _notes(sheet: Sheet) -> str:
    items = [_note(number, note) for number, note in enumerate(sheet.notes, 1)]
    remarks = "".join(f"<p>{escape(remark)}</p>\n" for remark in sheet.remarks)
    sources = "".join(
        f'<p><a href="{escape(url)}">{escape(title)}</a>. {escape(text)}</p>\n' for title, url, text in sheet.sources
    )
    return f"{remarks}<h2>Published figures</h2>\n<ol>\n{''.join(items)}</ol>\n{sources}" if items else remarks


def _note(number: int, note: Note) -> str:
    return f'<li id="note{number}">{escape(note.title)}{"".join(f"; {escape(text)}" for text in note.lines)}.</li>\n'


def _missing(sheet: Sheet) -> str:
    parts = []
    for title, commands in missing_lines(sheet):
        items = "".join(f"<li><code>{escape(text)}</code></li>\n" for text in commands)
        parts.append(f"<p>{escape(title)}</p>\n" + (f"<ul>\n{items}</ul>\n" if items else ""))
    return f"<h2>What is missing</h2>\n{''.join(parts)}" if parts else ""
