"""Questions with a few answers: one table, each row in two forms, the prompts of OLMES (Gu et al., 2024) byte for byte.

    arc-challenge           the likeliest answer's text, after five shots
    arc-challenge:letters   the likeliest letter, the answers listed before

An item has `question`, `choices` and `answer` (a number from 0), whichever file it is from: `published.py` reads the
forms in which the sets were published, and this file the ready-made requests of AI2, out of which come their five
shots, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from camelid.errors import FormatError
from camelid.evals.sources import Source
from camelid.evals.task import Answered, Choices, Item, Metric, Request, Scorer, Splits, Task, Verdict
from camelid.evals.tasks.likeliest import BY_LENGTH, BY_PMI, PLAIN, likeliest
from camelid.evals.tasks.published import FORMS, split_patterns

LETTERS = "ABCDEFGHIJ"
_CORE = "*/oe_eval_tasks/"
_SHOT = re.compile(r"\nAnswer: ([A-J])(?:\n\n|$)")
_OPTION = re.compile(r"\n ([A-J])\. ")


@dataclass(frozen=True)
class Set:
    """A row of the table.

    Attributes:
        name, title: of the task.
        core: its folder among AI2's requests; None: it is there in another form.
        split: whose items are measured: test, or validation where the test set's answers are not public.
        before, after: what stands around the question before an answer's text.
        list_before, list_after: what stands around it before the listed answers.
        pmi: whether answers are also measured after "Answer:" alone.
        quoted: the metric that people quote.
        guesses: what guessing scores.
        n_shots: if nothing else is asked for.
        folder: of the files, where they differ from `val_` or `test_` and the form.
    """

    name: str
    title: str
    core: str | None
    split: str
    before: str = "Question: "
    after: str = "\nAnswer:"
    list_before: str = "Question: "
    list_after: str = ""
    pmi: bool = True
    quoted: str = "acc_norm"
    guesses: float = 0.25
    n_shots: int = 5
    folder: str | None = None

    def path(self, form: str) -> str:
        """Pattern of the file with AI2's requests."""
        prefix = self.folder if self.folder is not None else f"{'test' if self.split == 'test' else 'val'}_"
        return f"{_CORE}{self.core}/{prefix}{form}_5shot/requests.jsonl.gz"


SETS = (
    Set("arc-easy", "ARC, easy", "arc_easy", "test"),
    Set("arc-challenge", "ARC, challenge", "arc_challenge", "test"),
    Set(
        "hellaswag",
        "HellaSwag",
        "hellaswag",
        "validation",
        before="",
        after="",
        list_before="",
        list_after="\nChoose the best continuation:",
    ),
    Set("piqa", "PIQA", "piqa", "validation", before="Goal: ", list_before="Goal: ", guesses=0.5),
    Set("boolq", "BoolQ", "boolq", "validation", before="", list_before="", pmi=False, quoted="acc", guesses=0.5),
    Set("openbookqa", "OpenBookQA", "openbookqa", "test"),
    Set("sciq", "SciQ", "sciq", "validation", quoted="acc", folder=""),
    Set("commonsenseqa", "CommonsenseQA", "csqa", "validation", guesses=0.2),
    Set("socialiqa", "Social IQa", "socialiqa", "validation", guesses=1 / 3),
    Set(
        "winogrande",
        "WinoGrande",
        "winogrande",
        "validation",
        list_before="Fill in the blank: ",
        pmi=False,
        quoted="acc",
        guesses=0.5,
    ),
    Set("copa", "COPA", None, "validation", before="", after="", pmi=False, quoted="acc", guesses=0.5, n_shots=0),
)


class MultipleChoice(Task):
    """A row of the table in one of its forms."""

    in_core = True

    def __init__(self, row: Set, letters: bool) -> None:
        self.row, self.letters = row, letters
        self.name = f"{row.name}:letters" if letters else row.name
        self.title, self.guesses, self.n_shots = row.title, row.guesses, row.n_shots
        self.splits = Splits(items=row.split, shots="train")
        form = "the likeliest letter" if letters else "the likeliest answer's text"
        self.conditions = {"prompt": f"OLMES: {form}"}
        self.metrics = (PLAIN,)
        if not letters and row.name != "winogrande":
            all_of_them = (PLAIN, *BY_LENGTH, *((BY_PMI,) if row.pmi else ()))
            self.metrics = tuple(sorted(all_of_them, key=lambda metric: metric.name != row.quoted))

    def read(self, source: Source, split: str) -> Iterable[Item]:
        row, parse = self.row, FORMS[self.row.name]
        form = "mc" if self.letters or split == "train" else "rc"
        found = source.find(split, *self._core_patterns(form), *split_patterns(row.name, split))
        for name in found:
            where, rows = f"{source.name}: {name}", source.read_rows(name)
            if name.endswith("requests.jsonl.gz"):
                docs = self._shots(source, rows, where) if split == "train" else self._docs(rows, where)
            else:
                docs = [(_id(each, number), each) for number, each in enumerate(rows)]
            for id, doc in docs:
                fields = doc if {"question", "choices", "answer"} == set(doc) else parse(id, doc, where)
                if self.letters and doc.get("ctx_b") == "":  # of HellaSwag, as OLMES has it
                    fields = {**fields, "question": f"{fields['question'].rstrip()} "}
                yield Item(id, None, fields)

    def _core_patterns(self, form: str) -> list[str]:
        if self.row.core is None:
            return ["*/hf_datasets/super_glue/copa/validation/*.arrow"]
        return [self.row.path(form)]

    def _docs(self, rows: Sequence[Mapping[str, Any]], where: str) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """Each question once: AI2's files have a row an answer, and the unconditioned ones behind."""
        seen: set[int] = set()
        for row in rows:
            number, doc = row["doc_id"], row["doc"]
            if number >= 1_000_000 or number in seen:
                continue
            seen.add(number)
            id = _id(doc, number)
            if self.letters:
                yield id, self._parsed(doc["query"].removesuffix("\nAnswer:"), doc["gold"], where)
            elif self.row.name == "winogrande":
                yield id, doc
            else:
                query = doc["query"] if doc["query"].startswith(self.row.before) else self.row.before + doc["query"]
                question = query.removeprefix(self.row.before).removesuffix(self.row.after)
                yield id, {"question": question, "choices": doc["choices"], "answer": doc["gold"]}

    def _shots(
        self, source: Source, rows: Sequence[Mapping[str, Any]], where: str
    ) -> Iterable[tuple[str, Mapping[str, Any]]]:
        """The five shots that stand before every question; read from the form that lists the answers.

        There HellaSwag's questions end in a space, that in the form of texts only some have.
        """
        first = rows[0]
        text = first["request"]["context"].removesuffix(first["doc"]["query"])
        texts = ""
        if self.row.name == "hellaswag" and not self.letters:
            (name,) = source.find("train", self.row.path("rc"))
            texts = source.read_rows(name)[0]["request"]["context"]
        start = 0
        for number, match in enumerate(_SHOT.finditer(text)):
            shot = self._parsed(text[start : match.start()], LETTERS.index(match[1]), where)
            bare = shot["question"].rstrip()
            if f"{bare} {shot['choices'][shot['answer']]}" in texts:
                shot = {**shot, "question": bare}
            yield f"shot{number}", shot
            start = match.end()

    def _parsed(self, text: str, answer: int, where: str) -> Mapping[str, Any]:
        """A question with its answers listed below, as fields."""
        question, *rest = _OPTION.split(text)
        if not rest or rest[::2] != list(LETTERS[: len(rest) // 2]):
            raise FormatError(f"{where}: no list of answers in {text[:60]!r}; another version of the requests?")
        question = question.removeprefix(self.row.list_before).removesuffix(self.row.list_after)
        if self.row.name == "winogrande":
            question = question.replace("___", "_")
        return {"question": question, "choices": rest[1::2], "answer": answer}

    def request(self, item: Item, shots: Sequence[Item]) -> Request:
        told = "".join(f"{self._question(shot)}{self._answer(shot)}\n\n" for shot in shots)
        if self.letters:
            letters = tuple(f" {letter}" for letter in LETTERS[: len(item.fields["choices"])])
            return Choices(told + self._question(item), letters)
        if self.row.name == "winogrande":
            before, _, after = item.fields["question"].partition("_")
            return Choices(
                tuple(told + before + choice for choice in item.fields["choices"]), (f" {after.strip()}",) * 2
            )
        alone = "Answer:" if self.row.pmi else None
        answers = tuple(f" {choice}" for choice in item.fields["choices"])
        asked = self._question(item)
        if self.row.name == "hellaswag":
            asked = asked.rstrip()  # but not the shots
        return Choices(told + asked, answers, alone)

    def _question(self, item: Item) -> str:
        row, question = self.row, item.fields["question"]
        if self.letters:
            if row.name == "winogrande":
                question = question.replace("_", "___")
            options = "".join(
                f"\n {letter}. {choice}" for letter, choice in zip(LETTERS, item.fields["choices"], strict=False)
            )
            return f"{row.list_before}{question}{row.list_after}{options}\nAnswer:"
        if row.name == "winogrande":
            return str(question.partition("_")[0])
        return f"{row.before}{question}{row.after}"

    def _answer(self, item: Item) -> str:
        answer = item.fields["answer"]
        if self.letters:
            return f" {LETTERS[answer]}"
        choice: str = item.fields["choices"][answer]
        if self.row.name == "winogrande":
            return f"{choice} {item.fields['question'].partition('_')[2].strip()}"
        return f" {choice}"

    def score(self, item: Item, answered: Answered, scorer: Scorer) -> Verdict:
        lengths = len(self.metrics) > 1
        return likeliest(answered.likelihoods, item.fields["choices"], item.fields["answer"], lengths)


def _id(doc: Mapping[str, Any], number: int) -> str:
    """The set's own name of an item; where that is no text, its place: HellaSwag's numbers occur twice."""
    return doc["id"] if isinstance(doc.get("id"), str) else str(number)


class Lambada(Task):
    """The last word of a passage (Paperno et al., 2016), as OpenAI cut the texts: does greedy decoding write it?"""

    name = "lambada"
    title = "LAMBADA"
    in_core = True
    n_shots = None
    splits = Splits(items="test")
    metrics = (PLAIN, Metric("perplexity", "nll", how="exp", percent=False, higher_is_better=False))
    conditions: Mapping[str, Any] = {"prompt": "the passage without its last word"}

    def read(self, source: Source, split: str) -> Iterable[Item]:
        found = source.find(split, f"{_CORE}lambada/bpb_0shot/requests.jsonl.gz", *split_patterns("lambada", split))
        for name in found:
            for number, row in enumerate(source.read_rows(name)):
                doc = row.get("doc")
                text = f"{doc['query']} {doc['choices'][0]}" if doc else row.get("text")
                if not isinstance(text, str) or " " not in text.strip():
                    raise FormatError(f"{source.name}: {name}: item {number}: has no text with a last word")
                yield Item(str(number), None, {"text": text})

    def request(self, item: Item, shots: Sequence[Item]) -> Request:
        context, _, word = item.fields["text"].rpartition(" ")
        return Choices(context, (f" {word}",))

    def score(self, item: Item, answered: Answered, scorer: Scorer) -> Verdict:
        found = answered.likelihoods
        return Verdict({"acc": float(found.greedy[0]), "nll": -found.logprobs[0]})


TASKS = (*(MultipleChoice(row, letters) for row in SETS for letters in (False, True)), Lambada())
