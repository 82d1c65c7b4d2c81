"""MT-bench (Zheng et al. 2023, arXiv 2306.05685): 80 questions of two turns each, and a model that judges the answers.

    mt-bench             each answer is rated from 1 to 10
    mt-bench:pairwise    each dialogue against that of another model, whose answers lie beside the questions as
                         `model_answer/NAME.jsonl`; judged in both orders, and a win needs both

Prompts are FastChat's; those for mathematics, reasoning and coding show the judge GPT-4's answers as a reference. A
judge that answers with no rating is counted as unparsable, and its answers are not in the mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from camelid.errors import FormatError
from camelid.evals.scorers import judge
from camelid.evals.sources import Source
from camelid.evals.task import Answer, Answered, Generate, Item, Metric, Request, Scorer, Splits, Task, Verdict, Written
from camelid.evals.tasks.shots import published
from camelid.tokens.templates.message import Message

TEMPERATURES = {"writing": 0.7, "roleplay": 0.7, "stem": 0.1, "humanities": 0.1}
"""By category; all others are greedy (FastChat)."""
WITH_REFERENCE = ("math", "reasoning", "coding")
_WINS: Mapping[judge.Preference, float] = {"A": 1.0, "tie": 0.5, "B": 0.0}


class MtBench(Task):
    """MT-bench, rated alone or against another model."""

    title = "MT-bench"
    splits = Splits("test")
    n_shots = None
    needs_judge = True

    def __init__(self, *, pairwise: bool) -> None:
        self.pairwise = pairwise
        self.name = "mt-bench:pairwise" if pairwise else "mt-bench"
        figure = "win_rate" if pairwise else "rating"
        names = [f"{figure}{turn}_{kind}" for kind in ("fixed", "compat") for turn in ("", "_first", "_second")]
        self.metrics = tuple(Metric(name, name, unparsable="out", percent=pairwise) for name in names)
        self.conditions = {
            "prompt": "FastChat's judge prompts, " + ("pairwise, both orders" if pairwise else "single answers"),
            "temperatures": dict(TEMPERATURES),
            "unparsable": "not in the mean",
        }

    def read(self, source: Source, split: str) -> Iterable[Item]:
        references = _turns(source, split, "reference_answer*.jsonl*", "*reference_answer*/*.jsonl*")
        others = _turns(source, split, "model_answer/*.jsonl*", "*model_answer/*.jsonl*") if self.pairwise else {}
        for row in source.rows(split, "question.jsonl*", "*question*.jsonl*"):
            number, category, turns = row.get("question_id"), row.get("category"), row.get("turns")
            where = f"{source.name}: question {number}"
            if not isinstance(category, str) or not isinstance(turns, list) or len(turns) != 2:
                raise FormatError(f"{where}: no category and two turns; MT-bench's rows have them")
            if category in WITH_REFERENCE and number not in references:
                raise FormatError(f"{where}: no reference answer, which the judge needs for {category}")
            if self.pairwise and number not in others:
                raise FormatError(f"{where}: the other model has no answer to it")
            fields: dict[str, Any] = {"turns": turns}
            if category in WITH_REFERENCE:
                fields["reference"] = references[number]
            if self.pairwise:
                fields["other"] = others[number]
            yield Item(str(number), category, fields)

    def request(self, item: Item, shots: Sequence[Item]) -> Request:
        return self._turn(item, (Message("user", item.fields["turns"][0]),))

    def follow(self, item: Item, answers: Sequence[Answer]) -> Generate | None:
        if len(answers) > 1:
            return None
        first, second = item.fields["turns"]
        said = Message("assistant", _text(answers[0]))
        return self._turn(item, (Message("user", first), said, Message("user", second)))

    def _turn(self, item: Item, messages: tuple[Message, ...]) -> Generate:
        return Generate(messages, max_tokens=1024, temperature=TEMPERATURES.get(item.group or "", 0.0))

    def judge(self, item: Item, answers: Sequence[Answer]) -> Sequence[Generate]:
        texts = [_text(answer) for answer in answers]
        if not self.pairwise:
            return [single_request(item, texts[: n + 1]) for n in range(2)]
        other = item.fields["other"]
        orders = [(texts, other), (other, texts)]
        return [pair_request(item, a[: n + 1], b[: n + 1]) for n in range(2) for a, b in orders]

    def score(self, item: Item, answered: Answered, scorer: Scorer) -> Verdict:
        texts = [written.text for written in answered.judged]
        scores: dict[str, float | None] = {}
        for kind in ("fixed", "compat"):
            turns = self._wins(texts, kind) if self.pairwise else _ratings(texts, kind)
            name = "win_rate" if self.pairwise else "rating"
            both = [turn for turn in turns if turn is not None]
            scores[f"{name}_{kind}"] = sum(both) / 2 if len(both) == 2 else None
            scores[f"{name}_first_{kind}"], scores[f"{name}_second_{kind}"] = turns
        return Verdict(scores, {}, ("judge unparsable",) if None in scores.values() else ())

    def _wins(self, texts: Sequence[str], kind: str) -> list[float | None]:
        read = judge.preference_fixed if kind == "fixed" else judge.preference_compat
        told = [judge.both_orders(read(texts[at]), read(texts[at + 1])) for at in (0, 2)]
        return [None if one is None else _WINS[one] for one in told]


def _ratings(texts: Sequence[str], kind: str) -> list[float | None]:
    read = judge.rating_fixed if kind == "fixed" else judge.rating_compat
    return [read(text) for text in texts]


def _text(answer: Answer) -> str:
    assert isinstance(answer, Written)
    return answer.text


def _turns(source: Source, split: str, *patterns: str) -> dict[Any, list[str]]:
    """Question → both answers, of a file in the form of FastChat's answers."""
    found = {}
    for row in source.rows(split, *patterns):
        choices = row.get("choices")
        turns = choices[0].get("turns") if isinstance(choices, list) and choices else None
        if not isinstance(turns, list) or len(turns) != 2:
            raise FormatError(f"{source.name}: answer to question {row.get('question_id')}: no choices with two turns")
        found[row.get("question_id")] = turns
    return found


def single_request(item: Item, answers: Sequence[str]) -> Generate:
    """What the judge is asked about one answer, or about the second of two."""
    name = "single-math-v1" if "reference" in item.fields else "single-v1"
    if len(answers) == 1:
        values = {"question": item.fields["turns"][0], "answer": answers[0]}
    else:
        values = {f"question_{n}": turn for n, turn in enumerate(item.fields["turns"], start=1)}
        values |= {f"answer_{n}": answer for n, answer in enumerate(answers, start=1)}
    return _asked(item, name, len(answers), values)


def pair_request(item: Item, a: Sequence[str], b: Sequence[str]) -> Generate:
    """What the judge is asked about the answers of two models, in this order."""
    name = "pair-math-v1" if "reference" in item.fields else "pair-v2"
    if len(a) == 1:
        values = {"question": item.fields["turns"][0], "answer_a": a[0], "answer_b": b[0]}
    else:
        values = {f"question_{n}": turn for n, turn in enumerate(item.fields["turns"], start=1)}
        for letter, answers in (("a", a), ("b", b)):
            values |= {f"answer_{letter}_{n}": answer for n, answer in enumerate(answers, start=1)}
    return _asked(item, name, len(a), values)


def _asked(item: Item, name: str, n_turns: int, values: dict[str, str]) -> Generate:
    prompt = published("mt_bench_judge")["prompts"][name + ("-multi-turn" if n_turns == 2 else "")]
    values |= {f"ref_answer_{n}": turn for n, turn in enumerate(item.fields.get("reference", ()), start=1)}
    messages = (Message("system", prompt["system"]), Message("user", prompt["user"].format(**values)))
    return Generate(messages, max_tokens=2048)


TASKS = (MtBench(pairwise=False), MtBench(pairwise=True))
