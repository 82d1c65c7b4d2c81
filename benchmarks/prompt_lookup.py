"""Draft tokens where they help and where they cannot: none, auto, 4 and 8 in turns. All texts must be equal.

Four kinds: code edited, a text summarised with quotations, JSON filled from a text, plain chat. What is written is what
a good model would (`given`: the logits of the answer's ids are raised after each pass, so that any model takes the time
that it takes and writes that text; JSON without its form), and what the model writes itself (`own`).

python benchmarks/prompt_lookup.py [MODEL] [--answers given own] [--crowd 1] [--threads 2] [--repeats 5] [--draft MODEL]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from draft_texts import KINDS, Case, cases

import camelid
from camelid.chat.constrain import Form
from camelid.engine.backend import Backend
from camelid.engine.batch import Batch
from camelid.engine.engine import Engine
from camelid.engine.load import choose_backend
from camelid.engine.options import EngineOptions
from camelid.engine.request import Request, SamplingParams, Token
from camelid.hub.catalog import DEFAULT_MODEL
from camelid.hub.store import resolve
from camelid.weights.open import open_weights

VARIANTS: tuple[Any, ...] = (0, "auto", 4, 8)


class Watched:
    """A backend that counts, and writes what it is told.

    Attributes:
        told: the ids of the only text that is written; None: the model's own.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.told: tuple[int, ...] | None = None
        self.n_passes = self.n_positions = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def forward(self, batch: Batch) -> Any:
        """As the backend's own."""
        rows = self._backend.forward(batch)
        self.n_passes += 1
        self.n_positions += sum(len(span.ids) for span in batch.spans)
        if self.told is not None:
            (span,) = batch.spans
            for row, at in zip(rows[0], span.wanted, strict=True):
                next_id = self.told[min(span.start + at + 1, len(self.told) - 1)]
                row[next_id] = row.max() + 20
        return rows


@dataclass
class Sums:
    """What one variant took in one turn over the texts of a kind, from the first token of each to its last."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    tokens: int = 0
    passes: int = 0
    positions: int = 0
    drafted: int = 0
    accepted: int = 0
    texts: list[tuple[int, ...]] = field(default_factory=list)


class Bench:
    """One model."""

    def __init__(self, choices: argparse.Namespace) -> None:
        self.choices = choices
        self.weights = open_weights(resolve(choices.model))
        self.speaker = camelid.load(DEFAULT_MODEL)  # whose tokens the given texts have
        options = EngineOptions(threads=choices.threads, max_running=max(64, choices.crowd))
        backend = Watched(choose_backend(self.weights, "cpu", options))
        draft = choose_backend(open_weights(resolve(choices.draft)), "cpu", options) if choices.draft else None
        self.watched, self.engine = backend, Engine(backend, options, draft)

    def run(self, kind: str, answers: str) -> None:
        """All variants on the texts of a kind, a line of JSON each."""
        asked = [case for case in cases() if case.kind == kind]
        turns: dict[Any, list[Sums]] = defaultdict(list)
        for turn in range(self.choices.repeats + 1):
            for variant in VARIANTS:
                sums = Sums()
                for group in self.groups(asked, answers):
                    self.write(group, answers, variant, sums)
                if turn:
                    turns[variant].append(sums)
        for variant, sums_of_turns in turns.items():
            self.report(kind, answers, variant, turns[0], sums_of_turns)

    def groups(self, asked: list[Case], answers: str) -> Iterable[list[Case]]:
        """Those that are written at once: each alone, or as large a crowd as was asked for."""
        if answers == "given" or self.choices.crowd == 1:
            return [[case] for case in asked]
        return [[asked[place % len(asked)] for place in range(self.choices.crowd)]]

    def write(self, group: list[Case], answers: str, variant: Any, sums: Sums) -> None:
        """Write the answers and add up."""
        requests = [self.request(case, answers, variant, place) for place, case in enumerate(group)]
        self.watched.told = None
        if answers == "given":
            answer = self.ids(self.speaker.tokenizer.encode(group[0].answer))
            self.watched.told = (*requests[0].ids, *answer)
            requests = [replace(requests[0], params=requests[0].params.with_(max_tokens=len(answer)))]
        texts: list[list[int]] = [[] for _ in requests]
        counted: tuple[float, ...] | None = None
        for place, token in self.engine.stream_all(requests):
            assert isinstance(token, Token)
            texts[place].append(token.id)
            if counted is None and all(texts):
                counted, n_before = self.counts(), sum(map(len, texts))
        assert counted is not None
        took = [now - then for now, then in zip(self.counts(), counted, strict=True)]
        sums.seconds += took[0]
        sums.cpu_seconds += took[1]
        sums.passes += int(took[2])
        sums.positions += int(took[3])
        sums.drafted += int(took[4])
        sums.accepted += int(took[5])
        sums.tokens += sum(map(len, texts)) - n_before
        sums.texts += [tuple(text) for text in texts]

    def counts(self) -> tuple[float, ...]:
        """Clocks and counters."""
        watched, engine = self.watched, self.engine
        clocks = (time.perf_counter(), time.process_time())
        return (*clocks, watched.n_passes, watched.n_positions, engine.n_drafted, engine.n_accepted)

    def request(self, case: Case, answers: str, variant: Any, place: int) -> Request:
        """The question, with the number of guesses."""
        speaker = self.speaker
        form = Form(json_schema=case.schema) if case.schema and answers == "own" else None
        choices: dict[str, Any] = {
            "seed": place,
            "max_tokens": self.choices.tokens,
            "draft_tokens": variant,
            "form": form,
        }
        asked = speaker.chat_request([camelid.Message("user", case.prompt)], **choices)
        if answers == "own":
            return asked
        return Request(ids=self.ids(asked.ids), params=SamplingParams(temperature=0, draft_tokens=variant))

    def ids(self, ids: Iterable[int]) -> tuple[int, ...]:
        """Of a vocabulary that may be smaller: then a few ids mean several tokens."""
        return tuple(id % self.weights.config.vocab_size for id in ids)

    def report(self, kind: str, answers: str, variant: Any, none: list[Sums], turns: list[Sums]) -> None:
        """Print a line; the ratios are those of turns that stood side by side."""
        if any(sums.texts != none[0].texts for sums in turns):
            raise SystemExit(f"{kind}, {answers}: draft_tokens={variant} changed a text")
        rates = [sums.tokens / sums.seconds for sums in turns]
        ratios = sorted(plain.seconds / drafted.seconds for plain, drafted in zip(none, turns, strict=True))
        cpu = [plain.cpu_seconds / drafted.cpu_seconds for plain, drafted in zip(none, turns, strict=True)]
        last = turns[-1]
        row = {
            "model": Path(self.choices.model).name,
            "kind": kind,
            "answers": answers,
            "crowd": self.choices.crowd if answers == "own" else 1,
            "draft_tokens": variant,
            "tokens_per_second": round(statistics.median(rates), 1),
            "ratio": round(statistics.median(ratios), 3),
            "range": [round(ratios[0], 3), round(ratios[-1], 3)],
            "cpu_ratio": round(statistics.median(cpu), 3),
            "tokens": last.tokens,
            "passes": last.passes,
            "positions": last.positions,
            "accepted": f"{last.accepted}/{last.drafted}",
            "loops": sum(map(is_loop, last.texts)),
            "fixed": round(self.engine._proposer.cost.fixed, 1),
        }
        print(json.dumps(row), flush=True)


def is_loop(ids: tuple[int, ...]) -> bool:
    """Whether a text ends with the same few ids again and again, which flatters every guess."""
    return any(len(ids) > 60 and ids[-40:] == ids[-40 - period : -period] for period in range(1, 21))


def main() -> None:
    """Measure what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default=DEFAULT_MODEL)
    parser.add_argument("--answers", nargs="*", default=["given", "own"], choices=["given", "own"])
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=KINDS)
    parser.add_argument("--crowd", type=int, default=1, help="own answers that are written at once")
    parser.add_argument("--tokens", type=int, default=200, help="most of an own answer")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--draft", help="a draft model instead of looking up")
    choices = parser.parse_args()
    bench = Bench(choices)
    for answers in choices.answers:
        for kind in choices.kinds:
            bench.run(kind, answers)


if __name__ == "__main__":
    main()
