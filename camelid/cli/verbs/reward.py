"""How good is an answer: what a reward model says of it, and how often it agrees with people."""

from __future__ import annotations

import json as json_module
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from camelid.cli.console import print_json
from camelid.cli.flags import takes
from camelid.cli.options import BackendName, Json
from camelid.console import Terminal
from camelid.engine.options import EngineOptions
from camelid.errors import FormatError, MissingError, OptionError
from camelid.streams import literal

if TYPE_CHECKING:
    from camelid.evals.agreement import Agreement, Judged


@takes("engine", EngineOptions)
def run(
    model: Annotated[str, typer.Argument(help="A reward model: a folder, or a run's stage, as runs/NAME/reward.")],
    *,
    prompt: Annotated[str | None, typer.Option(help="The question.")] = None,
    answer: Annotated[list[str] | None, typer.Option(help="An answer to it; may be given several times.")] = None,
    file: Annotated[Path | None, typer.Option(help="JSON lines: preferences, or conversations to rate.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="With --file: only the first so many.")] = None,
    backend: BackendName = "auto",
    json: Json = False,
    engine: EngineOptions,
) -> None:
    """Rewards are logits: of two answers to one question the larger is better; σ of their difference is how surely.

    With --file it says how often the chosen answer of a preference has the larger reward, by grade, and how well it
    knows when it is right; of conversations, what each one's last answer is worth."""
    from camelid.engine.reward import RewardModel
    from camelid.hub.store import resolve

    if (file is None) == (prompt is None):
        raise OptionError("say what is to be judged: --prompt with --answer, or --file")
    if file is not None:
        rows = list(_records(file, limit))
        judge = RewardModel.open(resolve(model), backend, engine)
        if _are_conversations(rows):
            _rate(judge, rows, file, json)
            return
        found = _judge(judge, rows, file)
        print_json(found.as_json()) if json else _show(found)
        return
    if not answer:
        raise OptionError("--answer: there is none; give one or more", param="answer")
    from camelid.tokens.templates.message import Message

    assert prompt is not None
    rewards = RewardModel.open(resolve(model), backend, engine).score_answers([Message("user", prompt)], answer)
    _show_rewards(rewards, answer, json)


def _show_rewards(rewards: list[float], answers: list[str], json: bool) -> None:
    if json:
        print_json({"rewards": rewards})
        return
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("reward", justify="right")
    table.add_column("answer")
    for reward, text in sorted(zip(rewards, answers, strict=True), reverse=True):
        table.add_row(f"{reward:.4f}", literal(text))
    Terminal().print(table)


def _records(path: Path, limit: int | None) -> Iterator[dict[str, Any]]:
    """The records of a file of JSON lines, plain or .gz.

    Raises:
        MissingError, FormatError: it cannot be read.
    """
    import gzip

    if not path.is_file():
        raise MissingError(f"{path}: no such file; give JSON lines with prompt, chosen and rejected, or with messages")
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
        try:
            for number, line in enumerate(line for line in lines if line.strip()):
                if number == limit:
                    return
                record = json_module.loads(line)
                if not isinstance(record, dict):
                    raise FormatError(
                        f"{path}: line {number + 1} is no JSON object; give one preference or conversation a line"
                    )
                yield record
        except (ValueError, OSError, EOFError) as error:
            raise FormatError(f"{path}: not JSON lines that can be read ({error})") from None


def _are_conversations(records: list[dict[str, Any]]) -> bool:
    from camelid.data.chats.layouts import layout_of

    first = records[0] if records else {}
    return layout_of(first, "preferences") is None and layout_of(first, "conversations") is not None


def _rate(model: Any, records: list[dict[str, Any]], path: Path, json: bool) -> None:
    """Rewards in the order of the file, so that a record that fits not ends with an error."""
    from camelid.data.chats.layouts import layout_of
    from camelid.data.chats.records import MisfitError, to_messages

    ids: list[list[int]] = []
    answers: list[str] = []
    for number, record in enumerate(records, 1):
        layout = layout_of(record, "conversations")
        try:
            if layout is None:
                raise MisfitError("no conversation")
            read = layout.read(record)
            ids.append(model.ids(to_messages(read.messages), read.tools))
        except (MisfitError, OptionError) as error:
            raise FormatError(f"{path}: record {number}: {error}; correct it, or leave it out") from None
        if len(ids[-1]) > model.context:
            raise FormatError(f"{path}: record {number}: {len(ids[-1])} tokens, and the context has {model.context}")
        answers.append(read.messages[-1]["content"])
    _show_rewards(model.scores(ids), answers, json)


def _judge(model: Any, records: list[dict[str, Any]], path: Path) -> Agreement:
    from camelid.data.chats.encode import Encoder
    from camelid.data.chats.layouts import layout_of
    from camelid.data.chats.records import MisfitError
    from camelid.engine.reward import up_to_answer
    from camelid.evals.agreement import Judged, agreement

    encoder = Encoder(model.tokenizer, model.chat_format, "preferences", model.context)
    judged: list[Judged] = []
    ids: list[list[int]] = []
    left: dict[str, int] = {}
    for record in records:
        layout = layout_of(record, "preferences")
        try:
            if layout is None:
                raise MisfitError("no preference")
            read = layout.read(record)
            pair = encoder.pair(read)
        except MisfitError as error:
            left[str(error)] = left.get(str(error), 0) + 1
            continue
        ids += [up_to_answer(each.ids.tolist(), each.learned.tolist()) for each in pair]
        judged.append(Judged(read.about.get("grade"), 0.0, 0.0))
    if not judged:
        raise OptionError(f"{path}: no preference in it ({', '.join(left) or 'it is empty'})")
    rewards = model.scores(ids)
    pairs = zip(judged, rewards[::2], rewards[1::2], strict=True)
    return agreement([Judged(each.grade, chosen, rejected) for each, chosen, rejected in pairs], left)


def _show(found: Agreement) -> None:
    console = Terminal()
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for name, right in (("", False), ("pairs", True), ("agrees", True), ("95 % interval", True)):
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for name, row in (("all", found.overall), *found.grades.items()):
        table.add_row(name, f"{row.n:,}", f"{100 * row.share:.1f} %", f"{100 * row.low:.1f} – {100 * row.high:.1f}")
    console.print(table)
    console.print(f"[dim]calibration error {100 * found.calibration_error:.1f} %[/]")
    for reason, count in found.left_out.items():
        console.print(f"[dim]{count:,} left out: {literal(reason)}[/]", soft_wrap=True)
