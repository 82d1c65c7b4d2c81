"""GSM8K (Cobbe et al. 2021, arXiv 2110.14168): 1,319 word problems of grade school, each with a number as its answer.

    gsm8k         five shots, drawn from the training split for each item; prompts byte for byte lm-eval 0.4.13's
    gsm8k:cot     Wei's eight shots with a chain of thought; its `gsm8k_cot`
    gsm8k:maj8    the vote of 8 answers drawn at temperature 0.2; gsm8k:maj64 of 64: its `gsm8k_cot_self_consistency`
    gsm8k:chat    the eight shots as turns of a dialogue; Meta's form, its `gsm8k_cot_llama`

Each answer is read by two filters: strict, the form that the shots show; flexible, else the last number.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from typing import Literal

from camelid.errors import FormatError, OptionError
from camelid.evals.scorers import gsm8k
from camelid.evals.sources import Source
from camelid.evals.task import Answered, Generate, Item, Metric, Request, Scorer, Splits, Task, Verdict
from camelid.evals.tasks.shots import published
from camelid.tokens.templates.message import Message

ENDS = ("</s>", "<|im_end|>")
SHOTS_SEED = 1234
"""Of lm-eval's own generator, which draws the shots of one item after the other."""
_ASKED = (
    "Given the following problem, reason and give a final answer to the problem.\nProblem: {}\nYour response should "
    'end with "The final answer is [answer]" where [answer] is the response to the problem.\n'
)
_NAMES = {
    "5-shot": ("gsm8k", "gsm8k"),
    "cot": ("gsm8k:cot", "gsm8k_cot"),
    "chat": ("gsm8k:chat", "gsm8k_cot_llama"),
    "majority": ("gsm8k:maj{}", "gsm8k_cot_self_consistency"),
}


class Gsm8k(Task):
    """One of the forms of GSM8K.

    Args:
        form: 5-shot, cot, chat or majority.
        n: answers that vote.
    """

    in_core = True
    title = "GSM8K"

    def __init__(self, form: Literal["5-shot", "cot", "chat", "majority"], n: int = 1) -> None:
        name, self.oracle = _NAMES[form]
        self.form, self.n, self.name = form, n, name.format(n)
        self.n_shots = 5 if form == "5-shot" else 8
        self.splits = Splits("test", "train" if form == "5-shot" else None)
        filters = ("strict",) if form == "majority" else ("strict", "flexible")
        names = [f"{filtered}_{scorer}" for scorer in ("fixed", "compat") for filtered in filters]
        self.metrics = tuple(Metric(f"acc_{name}", name) for name in sorted(names, reverse=form != "5-shot"))
        self.conditions = {"prompt": f"lm-eval 0.4.13 {self.oracle}", "vote": n if n > 1 else None}

    def read(self, source: Source, split: str) -> Iterable[Item]:
        patterns = (f"*gsm8k/{split}.jsonl*", f"{split}.jsonl*", f"{split}*.parquet", f"*{split}*.jsonl*")
        core = ("*gsm8k*/requests.jsonl.gz",) if split == "test" else ()
        rows = source.rows(split, *core, *patterns, config="main")
        for number, row in enumerate(rows):
            doc = row.get("doc", row)
            if not isinstance(doc, dict) or not isinstance(doc.get("question"), str):
                raise FormatError(f"{source.name}: {split}: row {number + 1}: no question; GSM8K's rows have one")
            if not isinstance(doc.get("answer"), str) or "####" not in doc["answer"]:
                raise FormatError(f"{source.name}: {split}: row {number + 1}: its answer lacks '#### ' and a number")
            gsm8k.gold_value(doc["answer"])
            yield Item(f"{split}/{number}", None, {"question": doc["question"], "answer": doc["answer"]})

    def choose_shots(self, items: Sequence[Item], pool: Sequence[Item], n: int) -> Sequence[Sequence[Item]]:
        if self.form != "5-shot":
            shots = [Item(f"wei/{at}", None, shot) for at, shot in enumerate(published("gsm8k_wei")["shots"])]
            return [shots[:n]] * len(items)
        if n > len(pool):
            raise OptionError(f"{self.name}: {len(pool)} shots are there, {n} were asked for", param="shots")
        draw = random.Random(SHOTS_SEED)
        return [draw.sample(pool, n) for _ in items]

    def request(self, item: Item, shots: Sequence[Item]) -> Request:
        question = item.fields["question"]
        if self.form == "chat":
            return self._dialogue(question, shots)
        head, tail = ("Question: ", "\nAnswer:") if self.form == "5-shot" else ("Q: ", "\nA:")
        told = [
            f"{head}{shot.fields['question']}{tail} {shot.fields['answer' if self.form == '5-shot' else 'target']}\n\n"
            for shot in shots
        ]
        prompt = "".join(told) + head + question + tail
        if self.form == "majority":
            return Generate(prompt, ("Q:", "\n\n"), max_tokens=256, n=self.n, temperature=0.2)
        return Generate(prompt, (head.strip(), *ENDS), max_tokens=256)

    def _dialogue(self, question: str, shots: Sequence[Item]) -> Generate:
        turns = []
        for shot in shots:
            turns.append(Message("user", _ASKED.format(shot.fields["question"])))
            target = shot.fields["target"].replace("The answer is", "The final answer is").removesuffix(".")
            turns.append(Message("assistant", target))
        stops = ("<|eot_id|>", "<|start_header_id|>user<|end_header_id|>", "Q:", *ENDS)
        return Generate((*turns, Message("user", _ASKED.format(question))), stops, max_tokens=256)

    def score(self, item: Item, answered: Answered, scorer: Scorer) -> Verdict:
        gold, texts = item.fields["answer"], answered.written.texts
        if self.form == "majority":
            scored = {
                "strict_compat": gsm8k.majority_compat(texts, gold, self.oracle),
                "strict_fixed": gsm8k.majority_fixed(texts, gold),
            }
        else:
            scored = {
                "strict_compat": gsm8k.compat(texts[0], gold, self.oracle),
                "strict_fixed": gsm8k.fixed(texts[0], gold),
                "flexible_compat": gsm8k.compat(texts[0], gold, flexible=True),
                "flexible_fixed": gsm8k.fixed(texts[0], gold, flexible=True),
            }
        filtered = {name: one.answer for name, one in scored.items()}
        return Verdict({name: one.score for name, one in scored.items()}, filtered)


class _FiveShot(Gsm8k):
    in_core = False  # the wheel lacks the training split, where the shots come from


TASKS = (_FiveShot("5-shot"), Gsm8k("cot"), Gsm8k("chat"), Gsm8k("majority", 8), Gsm8k("majority", 64))
