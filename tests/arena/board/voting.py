"""Votes that tests make, and a source that grows as people vote."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from camelid.arena.battles import Battles
from camelid.arena.board.source import Facts, Text

MODELS = ("Llama-2-70b-chat", "Llama-2-7b-chat", "alpaca-13b", "closed-one", "<b>odd</b> & co")
FACTS = (
    Facts("Llama-2-70b-chat", "Meta", "Llama 2 Community", "2023/7", "https://ai.meta.com/llama/"),
    Facts("Llama-2-7b-chat", "Meta", "Llama 2 Community", "2023/7", run="tiny/pretrain"),
    Facts("alpaca-13b", "Stanford", "CC-BY-NC-4.0", "2022/9"),
    Facts("closed-one", "Acme", "Proprietary", "Online", "javascript:alert(1)"),
)


def some_battles(n: int, seed: int = 0, models: Sequence[str] = MODELS, start: int = 0) -> Battles:
    """Votes in which models named first are better; two a minute from November 2026 on, with style and languages."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, len(models), n)
    b = (a + rng.integers(1, len(models), n)) % len(models)
    better = rng.random(n) < 1 / (1 + 10.0 ** ((a - b) / 4))
    tied = rng.random(n) < 0.2
    winner = np.where(
        tied, np.where(rng.random(n) < 0.5, "tie", "tie (bothbad)"), np.where(better, "model_a", "model_b")
    )
    battles = Battles.of(
        [models[each] for each in a],
        [models[each] for each in b],
        [str(each) for each in winner],
        time=1_793_500_000.0 + 30 * np.arange(start, start + n),
        voter=rng.integers(0, 9, n).astype(np.int32),
        voters=tuple(f"arena_user_{at}" for at in range(9)),
        language=rng.integers(0, 2, n).astype(np.int16),
        languages=("English", "Italian"),
        turns=rng.integers(1, 4, n).astype(np.int16),
        ids=np.array([f"battle-{at}" for at in range(start, start + n)], dtype=str),
    )
    for name in ("tokens", "headers", "lists", "bold"):
        battles.numbers[name] = rng.integers(0, 50, (n, 2)).astype(np.float64)
    return battles


def both(first: Battles, second: Battles) -> Battles:
    """One log of two whose models are the same."""
    columns = {
        name: np.concatenate([getattr(first, name), getattr(second, name)])
        for name in ("a", "b", "winner", "time", "voter", "prompt", "language", "turns", "ids")
    }
    numbers = {name: np.concatenate([first.numbers[name], second.numbers[name]]) for name in first.numbers}
    assert first.models == second.models
    return Battles(first.models, voters=first.voters, languages=first.languages, numbers=numbers, **columns)


class Growing:
    """A source to which tests add votes, and from which they take them back."""

    name = "a test"

    def __init__(self, *chunks: Battles) -> None:
        self.chunks, self.epoch, self.asked = list(chunks), 0, []
        self.texts: dict[str, Text] = {}

    def state(self) -> object:
        return self.epoch

    def since(self, number: int) -> tuple[Battles, int]:
        self.asked.append(number)
        new = self.chunks[number:]
        if not new:
            return some_battles(0), len(self.chunks)
        if len(new) == 1:
            return new[0], len(self.chunks)
        whole = new[0]
        for chunk in new[1:]:
            whole = both(whole, chunk)
        return whole, len(self.chunks)

    def facts(self) -> dict[str, Facts]:
        return {each.name: each for each in FACTS}

    def text(self, id: str) -> Text | None:
        return self.texts.get(id)
