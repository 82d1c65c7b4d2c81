"""What a forward pass is given: running answers first, then prompts in chunks; the youngest gives way."""

from __future__ import annotations

from camelid.engine.pages import Pages
from camelid.engine.request import Request
from camelid.engine.scheduler import Scheduler
from camelid.engine.sequence import Sequence


def sequence(number: int, n_ids: int) -> Sequence:
    ids = [number * 100 + place for place in range(n_ids)]
    return Sequence(number, Request(ids=tuple(ids)), 0, ids)


def passes(scheduler: Scheduler, n: int, writes: bool = True) -> list[dict[int, int]]:
    """For each of n passes: request → how many of its ids are read. A sequence that was read whole writes an id."""
    seen = []
    for _ in range(n):
        chosen, batch = scheduler.next_batch()
        for one, span in zip(chosen, batch.spans, strict=True):
            assert list(span.ids) == one.ids[span.start : span.start + len(span.ids)]
            assert len(span.pages) * scheduler.pages.page_size >= span.start + len(span.ids)
            scheduler.commit(one, len(span.ids))
            assert (len(span.wanted) == 1) == (one.computed == len(one.ids))
            if writes and span.wanted:
                one.ids.append(0)
        seen.append({one.number: len(span.ids) for one, span in zip(chosen, batch.spans, strict=True)})
    return seen


def test_answers_go_on_while_a_long_prompt_is_read():
    scheduler = Scheduler(Pages(100, 4), max_batch_tokens=8, max_running=4)
    scheduler.add(sequence(1, 3))
    assert passes(scheduler, 1) == [{1: 3}]
    scheduler.add(sequence(2, 20))
    scheduler.add(sequence(3, 4))
    assert passes(scheduler, 4) == [{1: 1, 2: 7}, {1: 1, 2: 7}, {1: 1, 2: 6, 3: 1}, {1: 1, 2: 1, 3: 3}]


def test_no_more_run_at_once_than_allowed():
    scheduler = Scheduler(Pages(100, 4), max_batch_tokens=64, max_running=2)
    first, *others = [sequence(number, 3) for number in (1, 2, 3)]
    for each in (first, *others):
        scheduler.add(each)
    assert passes(scheduler, 2) == [{1: 3, 2: 3}, {1: 1, 2: 1}]
    scheduler.drop(first)
    assert passes(scheduler, 1) == [{2: 1, 3: 3}]


def test_the_youngest_gives_its_pages_back_and_starts_again():
    scheduler = Scheduler(Pages(5, 2, share=False), max_batch_tokens=64, max_running=4)
    old, young = sequence(1, 3), sequence(2, 3)
    scheduler.add(old)
    scheduler.add(young)
    assert passes(scheduler, 2) == [{1: 3, 2: 3}, {1: 1, 2: 1}]
    assert passes(scheduler, 2) == [{1: 1}, {1: 1}]  # five ids need three pages, and the young one had two
    assert (young.pages, young.computed) == ([], 0)
    scheduler.drop(old)
    assert passes(scheduler, 1) == [{2: 5}]


def test_a_request_waits_rather_than_push_another_out():
    scheduler = Scheduler(Pages(4, 2), max_batch_tokens=64, max_running=4)
    scheduler.add(sequence(1, 4))
    scheduler.add(sequence(2, 4))
    assert passes(scheduler, 1) == [{1: 4}]
    assert [each.number for each in scheduler.waiting] == [2]


def test_an_empty_schedule_is_an_empty_batch():
    chosen, batch = Scheduler(Pages(4, 2), 64, 4).next_batch()
    assert chosen == []
    assert batch.spans == ()
