"""Prompts that are only scored run beside answers: the same numbers, little at a time, and no more than is wanted."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.engine.backend_numpy import NumpyBackend
from camelid.engine.engine import Engine, EngineOptions
from camelid.engine.pages import Pages
from camelid.engine.request import Failed, Request, SamplingParams, Scored
from camelid.engine.scheduler import LEAST, LOOK_AGAIN, MOST_WAITED, Pace, Scheduler
from camelid.engine.scoring import log_sums
from camelid.engine.sequence import Sequence
from camelid.errors import ContextError, OptionError
from tests.engine.backends import OracleBackend, logits, mean_hidden, prompt_logprobs, score, scoring, tiny_backend
from tests.tiny import tiny_config, tiny_tensors

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


def logprobs_of(backend, ids):
    row = backend.row(np.array(ids)).astype(np.float64)
    return row - np.logaddexp.reduce(row)


def test_candidates_alone_are_told_and_one_row_is_computed():
    backend = Counting(OracleBackend())
    engine = Engine(backend, EngineOptions(context=64, max_batch_tokens=7))
    ids, labels = tuple(range(30)), (5, 9, 5, 300)
    scored = engine.result(Request(ids=ids, wants="logprobs", candidates=labels))
    assert (backend.n_rows, backend.n_ids) == (1, 30)
    expected = logprobs_of(backend.inner, ids)
    np.testing.assert_allclose(scored.candidates, [expected[list(labels)]], atol=1e-6)
    assert scored.best.tolist() == [expected.argmax()]
    assert (len(scored.logprobs), scored.tokens) == (0, ())
    places = engine.result(Request(ids=ids, wants="logprobs", rows=range(3, 8), candidates=labels))
    assert (places.candidates.shape, places.logprobs.shape) == ((5, 4), (5,))
    for place, row in enumerate(places.candidates, start=3):
        np.testing.assert_allclose(row, logprobs_of(backend.inner, ids[: place + 1])[list(labels)], atol=1e-6)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rows": range(2, 9)}, "rows: range"),
        ({"rows": range(0, 3, 2)}, "rows: range"),
        ({"candidates": (320,)}, "candidates: id 320 lies outside"),
    ],
)
def test_rows_and_candidates_that_cannot_be_are_refused(changes, words):
    with pytest.raises(OptionError, match=words):
        Engine(OracleBackend(), EngineOptions(context=64)).add(Request(ids=(1, 2, 3), wants="logprobs", **changes))


def test_what_many_prompts_begin_with_is_computed_once_to_the_id():
    """The last page of the beginning is not full: what it holds is copied, not computed again."""
    backend = Counting(OracleBackend())
    engine = Engine(backend, EngineOptions(context=64))
    beginning = tuple(range(30))
    numbers = [engine.add(Request(ids=beginning, wants="logprobs", candidates=(1,)))]
    numbers += [engine.add(scoring((*beginning, 100 + n, 50 + n, 7), start=31)) for n in range(50)]
    results = {outcome.request: outcome for outcome in finish(engine)}
    assert sorted(results) == numbers
    for n, number in enumerate(numbers[1:]):
        expected = [logprobs_of(backend.inner, (*beginning, 100 + n))[50 + n]]
        expected.append(logprobs_of(backend.inner, (*beginning, 100 + n, 50 + n))[7])
        np.testing.assert_allclose(results[number].logprobs, expected, atol=1e-6)
    assert backend.n_ids == 30 + 50 * 2
    assert engine.pages.n_available == engine.pages.n_pages


few = st.lists(st.integers(0, 2), min_size=2, max_size=24)


@settings(max_examples=60, deadline=None)
@given(
    asked=st.lists(st.tuples(few, st.integers(0, 30), st.booleans()), min_size=1, max_size=8),
    chunk=st.sampled_from([1, 3, 7, 512]),
    room=st.sampled_from([48, 64, 400]),
    share=st.booleans(),
)
def test_scores_are_the_oracles_in_any_crowd(asked, chunk, room, share):
    """Beside answers, with beginnings of any length in common, in a cache that is too small."""
    options = EngineOptions(context=48, max_batch_tokens=chunk, cache_tokens=room, prefix_cache=share, max_running=3)
    engine = Engine(OracleBackend(), options)
    requests, answers = {}, {}
    for ids, start, writes in asked:
        if writes:
            one = Request(ids=tuple(ids), params=GREEDY)
            answers[engine.add(one)] = [token.id for token in Engine(OracleBackend(), options).stream(one)]
        start = min(start, len(ids) - 1)
        one = Request(ids=tuple(ids), wants="logprobs", rows=range(start, len(ids)), candidates=(0, 7))
        requests[engine.add(one)] = one
    outcomes = finish(engine)
    for number, ids in answers.items():
        assert [outcome.id for outcome in outcomes if outcome.request == number] == ids
    results = {outcome.request: outcome for outcome in outcomes if isinstance(outcome, Scored)}
    assert results.keys() == requests.keys()
    for number, one in requests.items():
        rows = np.array([logprobs_of(engine.backend, one.ids[: place + 1]) for place in one.rows])
        np.testing.assert_allclose(results[number].candidates, rows[:, [0, 7]], atol=1e-6)
        following = one.ids[one.rows.start + 1 :]
        np.testing.assert_allclose(
            results[number].logprobs, [row[id] for row, id in zip(rows, following, strict=False)], atol=1e-6
        )
    assert engine.pages.n_available == engine.pages.n_pages


def test_an_answer_does_not_wait_for_prompts_that_are_scored():
    engine = Engine(OracleBackend(), EngineOptions(context=64, max_running=4, max_batch_tokens=16))
    numbers = [engine.add(scoring([n, *range(40)])) for n in range(30)]
    engine.step()
    answer = engine.add(Request(ids=(7, 8), params=GREEDY))
    given = [outcome.request for _ in range(12) for outcome in engine.step()]
    assert given.count(answer) == 12
    assert {outcome.request for outcome in finish(engine)} | set(given) >= set(numbers)


def test_an_interrupt_while_rows_are_taken_loses_none(monkeypatch):
    engine = Engine(OracleBackend(), EngineOptions(context=64, max_batch_tokens=8))
    ids, waiting = tuple(range(40)), [KeyboardInterrupt]
    alone = engine.result(scoring(ids)).logprobs
    engine.clear()
    number, made = engine.add(scoring(ids)), log_sums

    def interrupted(rows):
        if waiting:
            raise waiting.pop()
        return made(rows)

    engine.step()
    monkeypatch.setattr("camelid.engine.scoring.log_sums", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    (scored,) = finish(engine)
    assert scored.request == number
    np.testing.assert_array_equal(scored.logprobs[-len(alone) :], alone)
    assert len(scored.logprobs) == len(alone)


def test_broken_weights_end_a_scored_prompt_and_no_answer():
    class Broken(OracleBackend):
        def row(self, ids):
            return super().row(ids) * (np.nan if ids[0] == 9 else 1)

    engine = Engine(Broken(), EngineOptions(context=64))
    answer = engine.add(Request(ids=(7, 8), params=GREEDY))
    scored = engine.add(scoring((9, 8, 7)))
    outcomes = finish(engine)
    (failed,) = [outcome for outcome in outcomes if isinstance(outcome, Failed)]
    assert (failed.request, "not finite" in str(failed.error)) == (scored, True)
    assert [outcome.request for outcome in outcomes].count(answer) == 12


def test_changed_weights_and_a_cleared_cache_are_a_new_engine():
    """In the middle of an answer too: what it has read is read again."""
    config = tiny_config()
    old, new = (tiny_tensors(config, seed) for seed in (0, 1))
    engine = Engine(NumpyBackend(config, dict(old)), EngineOptions(context=64))
    ids = tuple(texts(1)[0])
    before = logits(engine, ids)
    written = [next(stream := engine.stream(Request(ids=ids, params=GREEDY))).id]
    engine.backend.tensors.update(new)
    engine.clear()
    fresh = Engine(NumpyBackend(config, new), EngineOptions(context=64))
    np.testing.assert_allclose(logits(engine, ids), logits(fresh, ids), atol=1e-5)
    assert not np.allclose(before, logits(engine, ids), atol=1e-2)
    written += [token.id for token in stream]
    rest = GREEDY.with_(max_tokens=11)
    assert written[1:] == [token.id for token in fresh.stream(Request(ids=(*ids, written[0]), params=rest))]
    assert engine.pages.n_available == engine.pages.n_pages


def test_pages_grow_until_none_is_left():
    book, pages = Pages(3, 4), []
    assert book.grow(pages, 0)
    assert book.grow(pages, 5)
    assert len(pages) == 2
    assert book.grow(pages, 8)
    assert not book.grow(pages, 13)
    assert (len(pages), book.n_available) == (3, 0)
