"""Prompts that are only scored run beside answers: the same numbers, little at a time, and no more than is wanted."""

from __future__ import annotations

import numpy as np
import pytest

from camelid.engine.engine import Engine, EngineOptions
from camelid.engine.pace import LEAST, LOOK_AGAIN, MOST_WAITED, Pace
from camelid.engine.pages import Pages
from camelid.engine.request import Request, SamplingParams
from camelid.engine.scheduler import Scheduler
from camelid.engine.sequence import Sequence
from camelid.errors import ContextError, OptionError
from tests.engine.backends import OracleBackend, logits, mean_hidden, prompt_logprobs, score, scoring, tiny_backend

GREEDY = SamplingParams(temperature=0.0, max_tokens=12)


class Counting:
    """A backend that counts the rows it is asked for."""

    def __init__(self, inner):
        self.inner, self.n_rows, self.n_ids = inner, 0, 0

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def forward(self, batch):
        rows = self.inner.forward(batch)
        self.n_rows += sum(len(own) for own in rows)
        self.n_ids += sum(len(span.ids) for span in batch.spans)
        return rows


def texts(n, length=40):
    rng = np.random.default_rng(3)
    return [rng.integers(0, 300, length).tolist() for _ in range(n)]


def finish(engine):
    """What all requests give until none is left."""
    outcomes = []
    while engine.is_busy:
        outcomes += engine.step()
    return outcomes


@pytest.mark.parametrize("options", [{}, {"max_batch_tokens": 7}, {"cache_tokens": 512, "context": 64}])
def test_readers_beside_answers_find_what_they_find_alone(options):
    ids = texts(4)
    alone = Engine(tiny_backend(), EngineOptions(**options))
    scores, mean, tokens = score(alone, ids[0]), mean_hidden(alone, ids[1]), prompt_logprobs(alone, ids[2], 3)
    answer = [token.id for token in alone.stream(Request(ids=tuple(ids[3]), params=GREEDY))]

    engine = Engine(tiny_backend(), EngineOptions(**options))
    requests = (
        scoring(ids[0]),
        Request(ids=tuple(ids[1]), wants="hidden", pooled=True),
        Request(ids=tuple(ids[2]), wants="logprobs", top=3),
    )
    stream = engine.stream(Request(ids=tuple(ids[3]), params=GREEDY))
    written = [next(stream).id]
    numbers = [engine.add(each) for each in requests]
    written += [token.id for token in stream]
    results = {outcome.request: outcome for outcome in finish(engine)}
    assert sorted(results) == numbers
    assert written == answer
    np.testing.assert_allclose(results[numbers[0]].logprobs, scores[0], atol=1e-5)
    assert (results[numbers[0]].best == ids[0][1:]).tolist() == scores[1].tolist()
    np.testing.assert_allclose(results[numbers[1]].rows[0], mean, atol=1e-5)
    assert [token.id for token in results[numbers[2]].tokens] == [token.id for token in tokens[1:]]
    assert engine.pages.n_available == engine.pages.n_pages


def test_only_the_wanted_rows_are_computed_and_beginnings_are_shared():
    backend = Counting(OracleBackend())
    engine = Engine(backend, EngineOptions(context=64))
    ids = list(range(40))
    score(engine, ids)
    assert (backend.n_rows, backend.n_ids) == (39, 39)  # nothing comes after the last id
    backend.n_rows = backend.n_ids = 0
    score(engine, ids, start=36)
    assert backend.n_rows == 4
    assert backend.n_ids <= 4 + engine.pages.page_size  # what stands before was read already
    backend.n_rows = backend.n_ids = 0
    engine.result(Request(ids=tuple(ids), wants="logits", rows=range(39, 40)))
    assert backend.n_rows == 1


def test_a_part_of_the_scores_is_that_part_of_all():
    engine = Engine(tiny_backend(), EngineOptions())
    (ids,) = texts(1)
    logprobs, greedy = score(engine, ids)
    for start in (1, 2, 17, 39):
        part = score(engine, ids, start)
        np.testing.assert_allclose(part[0], logprobs[start - 1 :], atol=1e-5)
        assert part[1].tolist() == greedy[start - 1 :].tolist()


def test_a_reader_whose_pages_are_taken_goes_on_where_it_was():
    backend = OracleBackend()
    engine = Engine(backend, EngineOptions(context=48, cache_tokens=64, prefix_cache=False, max_batch_tokens=8))
    ids = [list(range(n, n + 40)) for n in (1, 50)]
    alone = score(Engine(OracleBackend(), EngineOptions(context=48)), ids[0])
    engine.add(Request(ids=tuple(ids[1][:8]), params=GREEDY.with_(max_tokens=30)))
    number = engine.add(scoring(ids[0]))
    (scored,) = [outcome for outcome in finish(engine) if outcome.request == number]
    np.testing.assert_array_equal(scored.logprobs, alone[0])


def test_reading_beside_a_full_cache_waits_for_room_as_others_do():
    engine = Engine(OracleBackend(), EngineOptions(context=48, cache_tokens=48))
    alone = score(engine, list(range(40)))
    next(stream := engine.stream(Request(ids=tuple(range(1, 41)), params=GREEDY.with_(max_tokens=8))))
    beside = score(engine, list(range(40)))
    assert len(list(stream)) == 7
    np.testing.assert_array_equal(beside, alone)
    assert engine.pages.n_available == engine.pages.n_pages


def test_leaving_ends_reading():
    engine = Engine(OracleBackend(), EngineOptions(context=48, max_batch_tokens=4))
    number = engine.add(scoring(range(40)))
    engine.step()
    engine.cancel(number)
    assert not engine.is_busy
    assert engine.step() == []
    assert engine.pages.n_available == engine.pages.n_pages


def test_what_does_not_fit_is_refused():
    engine = Engine(OracleBackend(), EngineOptions(context=48))
    score(engine, list(range(48)))  # no room for an answer is needed
    with pytest.raises(ContextError, match="prompt: has 49 tokens, the context is 48; shorten it"):
        score(engine, list(range(49)))
    with pytest.raises(OptionError, match="at least one"):
        logits(engine, [])


def reading(number, n_ids):
    ids = [number * 100 + place for place in range(n_ids)]
    return Sequence(number, Request(ids=tuple(ids), wants="logits"), 0, ids)


def test_little_is_read_beside_those_who_write():
    scheduler = Scheduler(Pages(100, 4), max_batch_tokens=32, max_running=4, max_rows=20)
    scheduler.max_beside = 5
    scheduler.add(reading(1, 60))
    chosen, batch = scheduler.next_batch()
    assert [len(span.ids) for span in batch.spans] == [20]  # alone: as many as rows may be held
    scheduler.commit(chosen[0], 20)
    chosen[0].n_rows += 20
    writing = Sequence(2, Request(ids=(7,)), 0, [7])
    scheduler.add(writing)
    scheduler.next_batch()
    chosen, batch = scheduler.next_batch()
    assert {one.number: len(span.ids) for one, span in zip(chosen, batch.spans, strict=True)} == {2: 1, 1: 5}
    writing.held = True  # it waits for its form, and would be held up by more as well
    chosen, batch = scheduler.next_batch()
    assert {one.number: len(span.ids) for one, span in zip(chosen, batch.spans, strict=True)} == {1: 5}


def test_the_room_beside_answers_follows_the_pace():
    pace = Pace(512)
    assert pace.room() == 0  # how fast they come is measured first
    pace.note(0.010, 0)
    seconds = lambda n_read: 0.010 + 0.0005 * n_read  # noqa: E731
    for _ in range(200):
        room = pace.room()
        assert room == 0 or LEAST <= room <= 512
        pace.note(seconds(room), room)
    while not (room := pace.room()):
        pace.note(seconds(0), 0)
    assert seconds(room) <= 2 * 0.010
    assert room >= 12


def test_reading_is_never_put_off_for_ever():
    pace = Pace(512)
    assert [pace.room() for _ in range(MOST_WAITED + 1)][-1] > 0
    pace.note(1.0, 16)  # nothing is known to compare it with
    pace.note(0.01, 0)
    for _ in range(LOOK_AGAIN):
        pace.note(0.1, pace.room())
    assert pace.room() == 0
