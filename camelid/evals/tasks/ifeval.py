"""IFEval (Zhou et al. 2023, arXiv 2311.07911): 541 prompts with instructions that a program can check.

ifeval        the prompt as a user's message
ifeval:raw    the prompt as it is, for base models; lm-eval's `ifeval` without a chat template
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from camelid.errors import FormatError
from camelid.evals.scorers import ifeval
from camelid.evals.sources import Source
from camelid.evals.task import Answered, Generate, Item, Metric, Request, Scorer, Splits, Task, Verdict
from camelid.tokens.templates.message import Message


class IfEval(Task):
    """IFEval, to a chat model or a base model."""

    title = "IFEval"
    splits = Splits("test")
    n_shots = None
    metrics = (
        Metric("prompt_strict", "prompt_strict"),
        Metric("prompt_loose", "prompt_loose"),
        Metric("instruction_strict", "followed_strict", "ratio", per="instructions"),
        Metric("instruction_loose", "followed_loose", "ratio", per="instructions"),
    )

    def __init__(self, *, chat: bool) -> None:
        self.chat = chat
        self.name = "ifeval" if chat else "ifeval:raw"
        self.conditions = {"prompt": "a user's message" if chat else "lm-eval 0.4.13 ifeval", "sentences": "own rules"}

    def read(self, source: Source, split: str) -> Iterable[Item]:
        if source.name.startswith("hf:"):
            split = "train"  # so the hub calls the only split
        rows = source.rows(split, "input_data.jsonl*", "*ifeval*.jsonl*", "*.jsonl*", "*.parquet")
        for number, row in enumerate(rows, start=1):
            where = f"{source.name}: row {number}"
            names, given, prompt = row.get("instruction_id_list"), row.get("kwargs"), row.get("prompt")
            if not isinstance(prompt, str) or not isinstance(names, list) or not isinstance(given, list):
                raise FormatError(f"{where}: no prompt, instruction_id_list and kwargs; IFEval's rows have them")
            arguments = [ifeval.given_arguments(one or {}) for one in given]
            try:
                ifeval.followed("a", names, arguments)
            except FormatError as error:
                raise FormatError(f"{where}: {error}") from None
            fields = {"prompt": prompt, "instruction_id_list": names, "kwargs": arguments}
            yield Item(str(row.get("key", number)), None, fields)

    def request(self, item: Item, shots: Sequence[Item]) -> Request:
        prompt = item.fields["prompt"]
        return Generate((Message("user", prompt),) if self.chat else prompt, max_tokens=1280)

    def score(self, item: Item, answered: Answered, scorer: Scorer) -> Verdict:
        names = item.fields["instruction_id_list"]
        verdicts = ifeval.followed(answered.written.text, names, item.fields["kwargs"])
        scores = {
            "prompt_strict": _number(verdicts.all()),
            "prompt_loose": _number(verdicts.all(loose=True)),
            "followed_strict": float(verdicts.strict.count(True)),
            "followed_loose": float(verdicts.loose.count(True)),
            "instructions": float(len(names)),
        }
        unknown = None in verdicts.strict or None in verdicts.loose
        filtered = {"strict": list(verdicts.strict), "loose": list(verdicts.loose)}
        return Verdict(scores, filtered, ("language unknown without langdetect",) if unknown else ())


def _number(verdict: bool | None) -> float | None:
    return None if verdict is None else float(verdict)


TASKS = (IfEval(chat=True), IfEval(chat=False))
