"""A model votes on battles: every pair in both orders, or every answer alone, one line a battle as it is judged."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NoReturn

from camelid.arena.judging.prompts import Prompts, References, load_prompts, pair_request, single_request, why_not
from camelid.arena.logs.read import BY_MODEL
from camelid.arena.logs.vote import BattleText
from camelid.errors import FormatError, OptionError, ResourceError
from camelid.evals.ask import Asker
from camelid.evals.scorers import judge as reading
from camelid.evals.task import Generate, Written
from camelid.files import lock, whole_file, writing

Mode = Literal["pair", "single"]
RECORD, LINES, VOTES = "judge.json", "judgements.jsonl", "votes.jsonl"
_WINNERS = {"A": "model_a", "B": "model_b", "tie": "tie"}


@dataclass(frozen=True)
class Judged:
    """What came of it.

    Attributes:
        folder: with `judgements.jsonl` (all that the judge wrote), `votes.jsonl` (votes in LMSYS's form, the judge
            as `judge`, and `by_model`, so that they are not read together with people's) and `judge.json` (who
            judged, and how).
        winners: how often each outcome.
        unparsable: battles of which the judge's words name no winner; they are no votes.
        inconsistent: pairs whose two orders contradict each other: ties.
        first: judgements, over both orders, that prefer the answer shown first; `decided`: that prefer one at all.
        left_out: why battles were not judged → how many.
    """

    folder: Path
    winners: Mapping[str, int]
    unparsable: int
    inconsistent: int
    first: int
    decided: int
    left_out: Mapping[str, int]

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        return {**vars(self), "folder": str(self.folder)}


def judge(
    texts: Iterable[BattleText],
    asker: Asker,
    out: Path,
    mode: Mode = "pair",
    prompts: Prompts | None = None,
    references: References | None = None,
) -> Judged:
    """Judge all battles into a folder; what is there already is not asked again. Several battles with the same two
    answers, as where several people voted on them, are judged once, as the first of them.

    Raises:
        OptionError: the folder holds votes of another judge, or made in another way; the model has no chat format.
        FormatError: a line of judgements.jsonl is not JSON.
        ResourceError: another process judges into it, or the place cannot be written.
    """
    if not asker.has_chat:
        raise OptionError(f"{asker.name}: has no chat format; a judge needs one", param="judge")
    prompts, references = prompts or load_prompts(), references or {}
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
        with lock(out / ".lock", lambda: _refuse(out)):
            _check_record(out, asker, mode, prompts, references)
            return _judge(texts, asker, out, lambda text: _requests(text, mode, prompts, references), mode)


def _refuse(out: Path) -> NoReturn:
    raise ResourceError(f"{out}: another process judges into it; wait for it, or choose another --out")


def _judge(
    texts: Iterable[BattleText], asker: Asker, out: Path, requests: Callable[[BattleText], list[Generate]], mode: Mode
) -> Judged:
    done = {line["id"] for line in _lines(out)}
    left_out: Counter[str] = Counter()
    todo: list[tuple[BattleText, list[Generate]]] = []
    kept: dict[str, BattleText] = {}
    seen: set[tuple[frozenset[str], frozenset[str]]] = set()
    for text in texts:
        if reason := why_not(text):
            left_out[reason] += 1
            continue
        asked = requests(text)
        same = frozenset((text.model_a, text.model_b)), frozenset(repr(each.prompt) for each in asked)
        if same in seen:  # a judge would only repeat itself, and its votes look surer than they are
            left_out["the same answers were judged in an earlier one"] += 1
            continue
        seen.add(same)
        if any(asker.excess(each) > 0 for each in asked):
            left_out["too long for the judge"] += 1
            continue
        kept[text.id] = text
        if text.id not in done:
            todo.append((text, asked))
    with (out / LINES).open("a", encoding="utf-8") as file:
        for line in _asked(asker, todo, mode):
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
            file.flush()
    lines = [line for line in _lines(out) if line["id"] in kept]
    _write_votes(out, lines, kept, asker.name)
    return _summary(out, lines, mode, left_out)


def _requests(text: BattleText, mode: Mode, prompts: Prompts, references: References) -> list[Generate]:
    if mode == "pair":
        return [pair_request(prompts, text, swapped, references) for swapped in (False, True)]
    return [single_request(prompts, each, references) for each in (text.conversation_a, text.conversation_b)]


def _asked(asker: Asker, todo: Sequence[tuple[BattleText, list[Generate]]], mode: Mode) -> Iterator[dict[str, Any]]:
    """A line for each battle, once both answers are there."""
    waiting: dict[int, dict[int, str]] = {}
    for place, reply in asker.ask((each, text.id) for text, asked in todo for each in asked):
        number, side = divmod(place, 2)
        assert isinstance(reply.answer, Written)
        got = waiting.setdefault(number, {})
        got[side] = reply.answer.text
        if len(got) == 2:
            del waiting[number]
            yield {"id": todo[number][0].id, **verdict(mode, got[0], got[1])}


def verdict(mode: Mode, first: str, second: str) -> dict[str, Any]:
    """What a judge's two texts say: of a pair in both orders, or of side A and of side B."""
    if mode == "pair":
        marks: list[Any] = [reading.preference_fixed(each) for each in (first, second)]
        won = reading.both_orders(*marks)
    else:
        marks = [reading.rating_fixed(each) for each in (first, second)]
        won = reading.preference_of_ratings(*marks)
    winner = None if won is None else _WINNERS[won]
    return {"winner": winner, "marks": marks, "texts": [first, second]}


def _check_record(out: Path, asker: Asker, mode: Mode, prompts: Prompts, references: References) -> None:
    def digest(value: Any) -> str:
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    known = sorted([list(questions), list(answers)] for questions, answers in references.items())
    record = {"judge": asker.name, "model": dict(asker.describe()), "mode": mode, "temperature": 0}
    record |= {"prompts_sha256": digest(prompts), "references_sha256": digest(known) if known else None}
    path = out / RECORD
    if not path.exists():
        with whole_file(path) as file:
            file.write((json.dumps(record, indent=2, default=str) + "\n").encode())
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(record, default=str))
    if changed := [name for name in now if before.get(name) != now[name]]:
        raise OptionError(f"{out}: was judged with another {', '.join(changed)}; choose another --out", param="out")


def _lines(out: Path) -> list[dict[str, Any]]:
    """The judgements that are there; a last line that a kill has cut is taken away."""
    path = out / LINES
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if len(whole) < len(data):
        with whole_file(path) as file:
            file.write(whole)
    found = []
    for number, line in enumerate(whole.splitlines(), 1):
        try:
            found.append(json.loads(line))
        except ValueError:
            raise FormatError(f"{path}:{number}: is no JSON; remove the line, and it is judged again") from None
    return found


def _write_votes(out: Path, lines: Sequence[dict[str, Any]], texts: Mapping[str, BattleText], name: str) -> None:
    with writing(out), whole_file(out / VOTES) as file:
        for line in lines:
            if line["winner"] is not None:
                text = texts[line["id"]]
                row: dict[str, Any] = {"question_id": text.id, "model_a": text.model_a, "model_b": text.model_b}
                row |= {"winner": line["winner"], "judge": name, BY_MODEL: True, "turn": len(text.conversation_a) // 2}
                sides = {"conversation_a": list(text.conversation_a), "conversation_b": list(text.conversation_b)}
                file.write((json.dumps({**row, **sides}, ensure_ascii=False) + "\n").encode())


def _summary(out: Path, lines: Sequence[dict[str, Any]], mode: Mode, left_out: Counter[str]) -> Judged:
    winners = Counter(line["winner"] for line in lines if line["winner"] is not None)
    first = decided = inconsistent = 0
    if mode == "pair":
        marks = [line["marks"] for line in lines]
        inconsistent = sum(None not in pair and pair not in (["A", "B"], ["B", "A"], ["tie", "tie"]) for pair in marks)
        first = sum(pair.count("A") for pair in marks)
        decided = first + sum(pair.count("B") for pair in marks)
    unparsable = sum(line["winner"] is None for line in lines)
    return Judged(out, dict(winners), unparsable, inconsistent, first, decided, dict(left_out))
