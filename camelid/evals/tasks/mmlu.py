"""MMLU (Hendrycks et al., 2021): 14,042 questions of 57 subjects, four answers each, five shots of the subject.

    mmlu                the likeliest letter; prompts byte for byte those of lm-eval 0.4.13's `mmlu`
    mmlu:continuation   the likeliest answer's text; those of its `mmlu_continuation`
    mmlu:chat           the letter that a chat model writes; Meta's form, as its `mmlu_llama`, shots as turns

`acc` is over all questions (micro), `acc_macro` the mean of the 57 subjects' own: Meta's 68.4 of Llama 3 8B Instruct is
macro, the micro figure of the same run is 67.4.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from camelid.errors import FormatError
from camelid.evals.sources import Source, parse_table
from camelid.evals.task import Answered, Choices, Generate, Item, Metric, Request, Scorer, Splits, Task, Verdict
from camelid.evals.tasks.likeliest import likeliest
from camelid.tokens.templates.message import Message

LETTERS = "ABCD"
_CATEGORIES = {
    "humanities": "formal_logic high_school_european_history high_school_us_history high_school_world_history "
    "international_law jurisprudence logical_fallacies moral_disputes moral_scenarios philosophy prehistory "
    "professional_law world_religions",
    "social sciences": "econometrics high_school_geography high_school_government_and_politics "
    "high_school_macroeconomics high_school_microeconomics high_school_psychology human_sexuality "
    "professional_psychology public_relations security_studies sociology us_foreign_policy",
    "stem": "abstract_algebra anatomy astronomy college_biology college_chemistry college_computer_science "
    "college_mathematics college_physics computer_security conceptual_physics electrical_engineering "
    "elementary_mathematics high_school_biology high_school_chemistry high_school_computer_science "
    "high_school_mathematics high_school_physics high_school_statistics machine_learning",
    "other": "business_ethics clinical_knowledge college_medicine global_facts human_aging management marketing "
    "medical_genetics miscellaneous nutrition professional_accounting professional_medicine virology",
}
CATEGORY = {subject: category for category, subjects in _CATEGORIES.items() for subject in subjects.split()}


class Mmlu(Task):
    """One of the three forms of MMLU."""

    in_core = True
    title = "MMLU"
    splits = Splits(items="test", shots="dev")
    n_shots = 5
    guesses = 0.25
    metrics: tuple[Metric, ...] = (Metric("acc", "acc"), Metric("acc_macro", "acc", how="macro"))
    categories = CATEGORY

    def __init__(self, form: Literal["letters", "continuation", "chat"]) -> None:
        self.form = form
        self.name = "mmlu" if form == "letters" else f"mmlu:{form}"
        prompts = {
            "letters": "lm-eval mmlu: the likeliest letter",
            "continuation": "lm-eval mmlu_continuation: the likeliest answer's text",
            "chat": "Meta's, as lm-eval mmlu_llama: the letter that is written, shots as turns",
        }
        self.conditions = {"prompt": prompts[form]}
        if form == "continuation":
            per_length = (Metric("acc_norm", "acc_norm"), Metric("acc_norm_macro", "acc_norm", how="macro"))
            self.metrics = (*self.metrics, *per_length)

    def read(self, source: Source, split: str) -> Iterable[Item]:
        patterns = [f"{split}/*_{split}.csv", f"*/{split}/*_{split}.csv", f"*_{split}.csv"]
        for name in source.find(split, *patterns, f"*mmlu_no_train/*/{split}/*.arrow"):
            where = f"{source.name}: {name}"
            if name.endswith(".arrow"):
                subject = name.split("/")[-3]
                rows = [_from_fields(row, where) for row in source.read_rows(name)]
            else:
                subject = name.rpartition("/")[2].removesuffix(f"_{split}.csv")
                rows = [_from_columns(row, where, n) for n, row in enumerate(parse_table(source.read(name), where), 1)]
            for number, fields in enumerate(rows):
                yield Item(f"{subject}/{number}", subject, fields)

    def request(self, item: Item, shots: Sequence[Item]) -> Request:
        if self.form == "chat":
            return self._dialogue(item, shots)
        subject = (item.group or "").replace("_", " ")
        if self.form == "letters":
            head = f"The following are multiple choice questions (with answers) about {subject}.\n\n"
            question, answers = _with_letters, tuple(f" {letter}" for letter in LETTERS)
        else:
            head = f"The following are questions (with answers) about {subject}.\n\n"
            question, answers = _bare, tuple(f" {choice}" for choice in item.fields["choices"])
        told = [
            f"{question(shot)} {LETTERS[shot.fields['answer']] if self.form == 'letters' else _gold_text(shot)}\n\n"
            for shot in shots
        ]
        return Choices(head + "".join(told) + question(item), answers)

    def _dialogue(self, item: Item, shots: Sequence[Item]) -> Generate:
        turns = []
        for shot in shots:
            turns.append(Message("user", _asked(shot)))
            turns.append(Message("assistant", f"The best answer is {LETTERS[shot.fields['answer']]}."))
        turns += [Message("user", _asked(item)), Message("assistant", "The best answer is")]
        return Generate(tuple(turns), stops=(".",), max_tokens=10)

    def score(self, item: Item, answered: Answered, scorer: Scorer) -> Verdict:
        gold = item.fields["answer"]
        if self.form == "chat":
            text = answered.written.text
            found = re.search(r"(?<![A-Za-z])([A-D])(?![A-Za-z])", text)
            if found is None:
                return Verdict({"acc": None}, {"letter": None})
            return Verdict({"acc": float(found[1] == LETTERS[gold])}, {"letter": found[1]})
        return likeliest(answered.likelihoods, item.fields["choices"], gold, lengths=self.form == "continuation")


def _with_letters(item: Item) -> str:
    options = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, item.fields["choices"], strict=True))
    return f"{item.fields['question'].strip()}{options}\nAnswer:"


def _bare(item: Item) -> str:
    return f"Question: {item.fields['question'].strip()}\nAnswer:"


def _gold_text(item: Item) -> str:
    text: str = item.fields["choices"][item.fields["answer"]]
    return text


def _asked(item: Item) -> str:
    options = "".join(f"{letter}. {choice}\n" for letter, choice in zip(LETTERS, item.fields["choices"], strict=True))
    return (
        "Given the following question and four candidate answers (A, B, C and D), choose the best answer.\n"
        f"Question: {item.fields['question'].strip()}\n{options}"
        'Your response should end with "The best answer is [the_answer_letter]" where the [the_answer_letter] is one '
        "of A, B, C or D."
    )


def _from_columns(row: Sequence[str], where: str, number: int) -> Mapping[str, Any]:
    if len(row) != 6 or row[5] not in LETTERS or not row[5]:
        raise FormatError(f"{where}: row {number}: should be question, four answers, and a letter from A to D")
    return {"question": row[0], "choices": list(row[1:5]), "answer": LETTERS.index(row[5])}


def _from_fields(row: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    choices, answer = row.get("choices"), row.get("answer")
    if not isinstance(choices, list) or len(choices) != 4 or not isinstance(answer, int) or not 0 <= answer < 4:
        raise FormatError(f"{where}: a row should have question, four choices, and answer from 0 to 3")
    return {"question": row["question"], "choices": choices, "answer": answer}


TASKS = (Mmlu("letters"), Mmlu("continuation"), Mmlu("chat"))
