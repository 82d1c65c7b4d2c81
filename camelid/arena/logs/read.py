"""Votes and texts from files whose form is guessed from their first row."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from camelid.arena.battles import COUNTS, Battles
from camelid.arena.logs import fastchat
from camelid.arena.logs.columns import ENDING, open_battles
from camelid.arena.logs.forms import FORMS, Form
from camelid.arena.logs.rows import Row, rows_of
from camelid.arena.logs.vote import BattleText, Vote, gather, votes_of
from camelid.errors import FormatError, OptionError

log = logging.getLogger(__name__)
BY_MODEL = "by_model"  # true in the rows of a judge that is a model


def read_battles(paths: Sequence[Path], form: str | None = None, telling: bool = True) -> Battles:
    """The votes that count: those where the names were hidden. What is left out is told in a line, by reason.

    Args:
        paths: files, read one after the other; folders: of FastChat's logs, or a published one.
        form: a name of `FORMS`, or fastchat; None: guessed for each file.
        telling: say what is left out.

    Raises:
        MissingError: there is no such file.
        FormatError: a row is cut, or says no vote; the message says which.
        OptionError: no form that is known; no votes; votes of a model among people's.
    """
    if len(files := _files(paths)) == 1 and files[0].name.endswith(ENDING):
        return open_battles(files[0])
    left_out: Counter[str] = Counter()
    battles = gather(_counting(files, form, left_out))
    for reason, count in left_out.items() if telling else ():
        log.warning("%s votes left out: %s", f"{count:,}", reason)
    return battles


def read_logged(paths: Sequence[Path]) -> Iterator[tuple[str, Vote, str | None, BattleText | None]]:
    """All votes in their order, each with where it stands, what its log says against it, and its texts if it has any.
    LLMFAO's texts come from `results.jsonl` beside the votes, if that is there."""
    who: set[bool] = set()
    for path in _files(paths):
        if path.name.endswith(ENDING):
            yield from (
                (f"{path}: vote {n}", vote, None, None) for n, vote in enumerate(votes_of(open_battles(path)), 1)
            )
            continue
        kind, rows = _opened(path, None)
        texts: dict[str, BattleText] = {}
        if kind == "llmfao" and path.with_name("results.jsonl").is_file():
            texts = {text.id: text for text in read_texts([path])}
        for place, row in _apart(rows, who):
            if kind == "fastchat":
                if (logged := fastchat.logged_vote(row, place)) is not None:
                    yield place, logged.vote, logged.invalid, logged.text
                continue
            vote, reason = _vote(kind, row, place)
            assert vote is not None
            yield place, vote, reason, texts.get(vote.id or "") or _text(kind, row, place)


def read_texts(paths: Sequence[Path]) -> Iterator[BattleText]:
    """The texts of battles, by the ids of their votes. LLMFAO's come from `results.jsonl` beside the votes.

    Raises:
        MissingError, FormatError, OptionError: as `read_battles`.
    """
    for path in _files(paths):
        if path.name.endswith(ENDING):
            continue
        kind, rows = _opened(path, None)
        if kind == "llmfao":
            yield from _llmfao_texts(path, rows)
            continue
        for place, row in rows:
            if kind == "fastchat":
                logged = fastchat.logged_vote(row, place)
                text = logged.text if logged and logged.invalid is None else None
            else:
                text = _text(kind, row, place)
            if text is not None:
                yield text


def form_of(row: Row) -> str:
    """The name of the form that a file with this first row has; OptionError: none that is known."""
    if "type" in row and ("states" in row or "state" in row):
        return "fastchat"
    for name, form in FORMS.items():
        if all(field in row for field in form.fields):
            return name
    known = "; ".join(f"{name}: {', '.join(form.fields)}" for name, form in FORMS.items())
    raise OptionError(f"the log has {', '.join(list(row)[:8])}, which is no form that is known ({known})")


def _files(paths: Sequence[Path]) -> list[Path]:
    files: list[Path] = []
    for path in paths:
        found = sorted(path.glob("*-conv.json*")) or sorted(path.glob("votes.jsonl*")) if path.is_dir() else [path]
        if not found:
            raise OptionError(f"{path}: a folder without logs; they are called *-conv.json or votes.jsonl")
        files += found
    return files


def _opened(path: Path, form: str | None) -> tuple[str, Iterator[tuple[str, Row]]]:
    rows = rows_of(path)
    first = next(rows, None)
    if first is None:
        raise FormatError(f"{path}: is empty; give a log with votes")
    try:
        kind = form or form_of(first[1])
    except OptionError as error:
        raise OptionError(f"{path}: {error}") from None

    def again() -> Iterator[tuple[str, Row]]:
        yield first
        yield from rows

    return kind, again()


def _apart(rows: Iterator[tuple[str, Row]], who: set[bool]) -> Iterator[tuple[str, Row]]:
    """The rows, as long as all are people's votes, or all a model's; `who` remembers it from file to file."""
    for place, row in rows:
        who.add(bool(row.get(BY_MODEL)))
        if len(who) > 1:
            raise OptionError(f"{place}: votes of a model that judges, and votes of people; give one of both")
        yield place, row


def _counting(files: list[Path], form: str | None, left_out: Counter[str]) -> Iterator[Vote]:
    """The votes that count, and into `left_out` how many do not, by reason."""
    who: set[bool] = set()
    for path in files:
        if path.name.endswith(ENDING):
            yield from votes_of(open_battles(path))
            continue
        kind, rows = _opened(path, form)
        for place, row in _apart(rows, who):
            vote, reason = _vote(kind, row, place)
            if reason is None and vote is not None and not vote.anony:
                reason = "the names were shown"
            if reason:
                left_out[reason] += 1
            elif vote is not None:
                yield vote


def _vote(kind: str, row: Row, place: str) -> tuple[Vote | None, str | None]:
    if kind == "fastchat":
        logged = fastchat.logged_vote(row, place)
        return (None, None) if logged is None else (logged.vote, logged.invalid)
    form: Form = FORMS[kind]
    try:
        vote = form.vote(row, place)
    except KeyError as error:
        raise FormatError(f"{place}: lacks {error}; mend or remove the row") from None
    state = row.get("state")
    return vote, str(row.get("reason") or state) if state not in (None, COUNTS) else None


def _text(kind: str, row: Row, place: str) -> BattleText | None:
    try:
        return FORMS[kind].text(row, place)
    except KeyError as error:
        raise FormatError(f"{place}: lacks {error}; mend or remove the row") from None


def _llmfao_texts(path: Path, rows: Iterator[tuple[str, Row]]) -> Iterator[BattleText]:
    """Answers by question and model, from the files beside."""
    questions = {row["id"]: row["text"] for _, row in rows_of(path.with_name("prompts.jsonl"))}
    answers = {(row["prompt"], row["model"]): row["result"] for _, row in rows_of(path.with_name("results.jsonl"))}
    for place, row in rows:
        vote = FORMS["llmfao"].vote(row, place)
        prompt = int(row["prompt"])
        try:
            texts = [answers[prompt, int(row[side])] for side in ("model_x", "model_y")]
            question = {"role": "user", "content": questions[prompt]}
        except (KeyError, ValueError):
            raise FormatError(f"{place}: results.jsonl and prompts.jsonl beside it have no text for it") from None
        assert vote is not None
        sides = [(question, {"role": "assistant", "content": text or ""}) for text in texts]
        yield BattleText(vote.id or json.dumps(row), vote.model_a, vote.model_b, *sides)
