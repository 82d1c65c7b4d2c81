"""A model that answers by rule, and files of items in the published forms."""

from __future__ import annotations

import csv
import hashlib
import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from camelid.evals.ask import Reply
from camelid.evals.task import Choices, Generate, Likelihoods, Request, Text, TextLoss, Written

SUBJECTS = ("anatomy", "formal_logic", "virology")


class RuleModel:
    """Likelihoods and texts that follow from the words of the request alone; remembers what it was asked."""

    name = "rule"
    has_chat = True

    def __init__(self, context: int = 10**6, answer: str = "", stop_after: int | None = None) -> None:
        self.context, self.answer, self.stop_after = context, answer, stop_after
        self.asked: list[Request] = []

    def describe(self) -> Mapping[str, Any]:
        return {"rule": 1}

    def excess(self, request: Request) -> int:
        if isinstance(request, Text):
            return 0
        text = request.context if isinstance(request, Choices) else request.prompt
        return max(0, len(str(text)) - self.context)

    def ask(self, requests: Iterable[tuple[Request, str]]) -> Iterator[tuple[int, Reply]]:
        for place, (request, word) in reversed(list(enumerate(requests))):  # in another order than asked
            if self.stop_after is not None and len(self.asked) == self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(request)
            yield place, Reply(self.reply(request, word), 7, None)

    def reply(self, request: Request, word: str) -> Likelihoods | Written | TextLoss:
        if isinstance(request, Choices):
            pairs = list(zip(request.contexts, request.continuations, strict=True))
            alone = [("", each) for each in request.continuations] if request.unconditioned else []
            logprobs = tuple(-unit("".join(pair)) for pair in pairs)
            return Likelihoods(
                logprobs, (False,) * len(pairs), (1,) * len(pairs), tuple(-unit("".join(pair)) for pair in alone)
            )
        if isinstance(request, Generate):
            texts = tuple(self.answer or f"{unit(f'{request.prompt}{word}{n}'):.3f}" for n in range(request.n))
            return Written(texts, ("stop",) * request.n, (1,) * request.n)
        return TextLoss(unit(request.text) * len(request.text), len(request.text), len(request.text.encode()))


class FlatModel(RuleModel):
    """The model that finds everything equally likely."""

    def reply(self, request: Request, word: str) -> Likelihoods | Written | TextLoss:
        assert isinstance(request, Choices)
        n = len(request.continuations)
        return Likelihoods((0.0,) * n, (False,) * n, (1,) * n)


def unit(text: str) -> float:
    """A number between 0 and 1 that follows from a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


def write_mmlu(path: Path, n_items: int = 4, n_shots: int = 5) -> Path:
    """MMLU's archive: dev/ and test/ with a CSV file a subject."""
    with tarfile.open(path, "w:gz") as archive:
        for split, n in (("dev", n_shots), ("test", n_items)):
            for subject in SUBJECTS:
                text = io.StringIO(newline="")
                for row in range(n):
                    question = (
                        f"{subject} {split}, question {row}: which number is {unit(f'{subject}{split}{row}'):.9f}?"
                    )
                    csv.writer(text).writerow([question, *(f"{row} and {n}" for n in range(4)), "ABCD"[row % 4]])
                data = text.getvalue().encode()
                info = tarfile.TarInfo(f"{split}/{subject}_{split}.csv")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return path
