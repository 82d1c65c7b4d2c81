"""A form that takes its time holds up its own text only."""

from __future__ import annotations

import numpy as np
import pytest

from camelid.engine.engine import Engine, EngineOptions
from camelid.engine.request import Request, SamplingParams
from camelid.errors import OptionError
from tests.engine.backends import OracleBackend

GREEDY = SamplingParams(temperature=0.0, max_tokens=6)


class Late:
    """Allows even ids only; answers each push after `n` questions, and fails at the push numbered `fails`."""

    def __init__(self, size, n, fails=None, ends=None):
        self.size, self.n, self.fails, self.ends = size, n, fails, ends
        self.n_pushed, self.left, self.slow = 0, 0, True

    def ready(self, seconds=0.0):
        self.left = max(0, self.left - 1)
        return self.left == 0

    @property
    def finished(self):
        assert self.left == 0, "asked too early"
        if self.n_pushed == self.fails:
            raise OptionError("regex: is too complex")
        return self.n_pushed == self.ends

    def mask(self):
        assert self.left == 0, "asked too early"
        return np.arange(self.size) % 2 == 0

    def push(self, id):
        assert id % 2 == 0
        self.n_pushed, self.left = self.n_pushed + 1, self.n

    def fork(self):
        return Late(self.size, self.n, self.fails, self.ends)


def asked(form, ids=(1, 2, 3), **changes):
    return Request(ids=tuple(ids), params=GREEDY.with_(**changes), constraint=form)


@pytest.mark.parametrize("draft_tokens", [0, 4])
def test_others_go_on_and_the_text_is_the_same(draft_tokens):
    size = OracleBackend().config.vocab_size
    alone = [
        [token.id for token in Engine(OracleBackend(), EngineOptions(context=64)).stream(request)]
        for request in (asked(Late(size, 0)), asked(None, (5, 6)))
    ]
    engine = Engine(OracleBackend(), EngineOptions(context=64))
    late, other = engine.add(asked(Late(size, 9), draft_tokens=draft_tokens)), engine.add(asked(None, (5, 6)))
    found = {late: [], other: []}
    n_late = 0
    while engine.is_busy:
        for token in engine.step():
            found[token.request].append(token.id)
            if token.request == other and len(found[other]) == 6:
                n_late = len(found[late])
    assert [found[late], found[other]] == alone
    assert n_late <= 2, "the other text has waited for the late one"


def test_a_held_text_that_is_pushed_out_loses_nothing():
    size = OracleBackend().config.vocab_size
    form = lambda: Late(size, 5)  # noqa: E731
    alone = [token.id for token in Engine(OracleBackend(), EngineOptions(context=48)).stream(asked(form(), range(20)))]
    engine = Engine(OracleBackend(), EngineOptions(context=48, cache_tokens=48, prefix_cache=False))
    engine.add(asked(None, range(30, 38), max_tokens=30))
    late = engine.add(asked(form(), range(20)))
    found = []
    while engine.is_busy:
        found += [token.id for token in engine.step() if token.request == late]
    assert found == alone
    assert engine.pages.n_available == engine.pages.n_pages


def test_a_form_that_fails_late_ends_its_own_request():
    size = OracleBackend().config.vocab_size
    engine = Engine(OracleBackend(), EngineOptions(context=64))
    stream = engine.stream(asked(Late(size, 3, fails=2)))
    other = engine.stream(asked(None, (5, 6)))
    next(other)
    assert len([next(stream)]) == 1
    with pytest.raises(OptionError, match="too complex"):
        next(stream)
    assert len(list(other)) == 5
    assert not engine.is_busy


def test_a_held_text_can_be_left():
    size = OracleBackend().config.vocab_size
    engine = Engine(OracleBackend(), EngineOptions(context=64))
    number = engine.add(asked(Late(size, 10**9)))
    for _ in range(4):
        assert engine.step() == []
    engine.cancel(number)
    assert not engine.is_busy
    assert engine.pages.n_available == engine.pages.n_pages


def test_the_last_token_says_that_the_form_is_complete():
    size = OracleBackend().config.vocab_size
    tokens = list(Engine(OracleBackend(), EngineOptions(context=64)).stream(asked(Late(size, 3, ends=4))))
    assert [token.finish_reason for token in tokens] == [None, None, None, "stop"]
