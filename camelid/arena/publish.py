"""A published board: the log of its votes, the board, and how it was made, so that anyone can make it again.

Each line of the log carries a hash of itself and of the line before (a hash chain, as Git's commits have), so that a
vote that was changed is named.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from camelid.arena.battles import Battles
from camelid.arena.cleaning.clean import Cleaned
from camelid.arena.logs.read import read_battles
from camelid.arena.logs.vote import Conversation, Vote
from camelid.arena.logs.write import battle_row
from camelid.arena.ratings.board import Board
from camelid.arena.ratings.covariates import STYLE
from camelid.arena.ratings.options import RateOptions
from camelid.arena.ratings.rate import rate
from camelid.arena.ratings.style import style_of
from camelid.errors import FormatError, OptionError
from camelid.files import whole_file, writing
from camelid.parsing import parse_json
from camelid.pedigree import write_pedigree

LOG, BOARD = "votes.jsonl", "board.json"
_START = hashlib.sha256(b"camelid arena").hexdigest()
_DIGITS = 6  # of ratings; less than this differs between machines


@dataclass(frozen=True)
class Verified:
    """What making a board again has found.

    Attributes:
        n_votes: lines of the log.
        board: made anew.
        faults: what is not as it was published, a sentence each; none: all is equal.
    """

    n_votes: int
    board: Board | None
    faults: tuple[str, ...]


def publish(
    cleaned: Cleaned, folder: Path, options: RateOptions, inputs: Sequence[Path] = (), texts: bool = False
) -> Board:
    """Write log, board and record. Voters get numbers; texts stay at home unless `texts`.

    Raises:
        OptionError: the folder has a board already; no vote counts.
        ResourceError: the place cannot be written.
    """
    if (folder / BOARD).exists():
        raise OptionError(f"{folder}: has a published board already; choose another folder")
    voters: dict[str, str] = {}
    rows = [
        _row(each.candidate.vote, each.candidate.conversations, each.reason, voters, texts) for each in cleaned.judged
    ]
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    head = _START
    with whole_file(folder / LOG) as file:
        for row in rows:
            head = _link(head, row)
            file.write(_line({**row, "chain": head}))
    board = rate(_counting(folder), options)
    made = {"options": options.model_dump(mode="json"), "n_lines": len(rows), "head": head, "board": _rounded(board)}
    with whole_file(folder / BOARD) as file:
        file.write(json.dumps(made, indent=1, ensure_ascii=False).encode() + b"\n")
    left_out = {f"left out: {name}": count for name, count in cleaned.counts.items() if count}
    write_pedigree(folder, "arena export", inputs, options.model_dump(mode="json"), {"votes": len(rows), **left_out})
    return board


def verify(folder: Path) -> Verified:
    """Make a published board again from its log.

    Raises:
        MissingError, FormatError: log or board are missing, or are none.
    """
    try:
        published = parse_json((folder / BOARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        published = None
    if not isinstance(published, dict) or not {"options", "n_lines", "head", "board"} <= published.keys():
        raise FormatError(f"{folder / BOARD}: is no published board")
    faults = []
    head, lines = _START, 0
    for lines, (row, told) in enumerate(_lines(folder / LOG), 1):
        if _link(head, row) != told:
            faults.append(f"{LOG}:{lines}: vote {row.get('question_id', lines)} is not what was published")
        head = told
    if lines != published["n_lines"]:
        faults.append(f"{LOG}: has {lines:,} votes, and {published['n_lines']:,} were published")
    elif head != published["head"] and not faults:
        faults.append(f"{LOG}: its last line is not what was published")
    try:
        board = rate(_counting(folder), RateOptions(**published["options"]))
        faults += _differences(published["board"], _rounded(board))
    except (AttributeError, KeyError, TypeError):
        raise FormatError(f"{folder / BOARD}: is no published board") from None
    return Verified(lines, board, tuple(faults))


def _counting(folder: Path) -> Battles:
    return read_battles([folder / LOG], telling=False)


def _differences(published: Mapping[str, Any], made: Mapping[str, Any]) -> Iterator[str]:
    if published == made:
        return
    ours = {each["name"]: each for each in made["models"]}
    for model in published["models"]:
        now = ours.get(model["name"])
        if now != model:
            was = {name: model[name] for name in model if now is None or now.get(name) != model[name]}
            now_is = None if now is None else {name: now.get(name) for name in was}
            yield f"{BOARD}: {model['name']}: {was} was published, the log gives {now_is}"
            return
    yield f"{BOARD}: is not what the log gives"


def _row(
    vote: Vote,
    conversations: tuple[Conversation, Conversation],
    reason: str | None,
    voters: dict[str, str],
    texts: bool,
) -> dict[str, Any]:
    if vote.voter is not None:
        vote = replace(vote, voter=voters.setdefault(vote.voter, f"arena_user_{len(voters)}"))
    if all(conversations) and not all(name in vote.numbers for name in STYLE):
        counted = [style_of(each) for each in conversations]
        style = {name: (float(counted[0][k]), float(counted[1][k])) for k, name in enumerate(STYLE)}
        vote = replace(vote, numbers={**vote.numbers, **style})
    return battle_row(vote, conversations if texts else ((), ()), reason)


def _link(before: str, row: Mapping[str, Any]) -> str:
    return hashlib.sha256(before.encode() + _line(row)).hexdigest()


def _line(row: Mapping[str, Any]) -> bytes:
    return json.dumps(row, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8", "replace") + b"\n"


def _lines(path: Path) -> Iterator[tuple[dict[str, Any], str]]:
    from camelid.arena.logs.rows import rows_of

    for place, row in rows_of(path):
        told = row.pop("chain", None)
        if not isinstance(told, str):
            raise FormatError(f"{place}: has no hash; this is no published log")
        yield row, told


def _rounded(board: Board) -> Any:
    def rounded(value: Any) -> Any:
        if isinstance(value, float):
            return round(value, _DIGITS)
        if isinstance(value, Mapping):
            return {name: rounded(each) for name, each in value.items()}
        return [rounded(each) for each in value] if isinstance(value, list | tuple) else value

    return json.loads(json.dumps(rounded(board.as_json())))
