"""The thread that owns a model: what crosses, what is cancelled, what is refused."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

import pytest

from camelid.chat.answer import AnswerOptions, collect
from camelid.errors import CamelidError, OptionError
from camelid.serve import worker as worker_module
from camelid.serve.errors import ApiError
from camelid.serve.worker import Worker
from tests.serve.conftest import random_llama


@pytest.fixture
def llama(smollm2_path):
    return random_llama(smollm2_path)


def run(llama, play, max_waiting=4):
    """Run `play(worker)` with a worker that is started and stopped."""

    async def whole():
        worker = Worker("tiny", llama, max_waiting)
        worker.start()
        try:
            return await asyncio.wait_for(play(worker), 120)
        finally:
            await worker.stop(5)

    return asyncio.run(whole())


async def answer(worker, request):
    return await answer_of(worker.stream(request))


async def answer_of(stream):
    return collect([delta async for deltas in stream for delta in deltas])


@pytest.mark.slow
def test_many_answers_at_once_are_those_given_alone(llama):
    requests = [llama.request(f"Tale {n}", temperature=0.8, seed=n, max_tokens=8 + n, n=1 + n % 3) for n in range(8)]
    alone = [collect(llama._stream(request)) for request in requests]

    async def play(worker):
        return await asyncio.gather(*(answer(worker, request) for request in requests))

    together = run(llama, play)
    assert [each.ids for each in together] == [each.ids for each in alone]
    assert [[other.ids for other in each.others] for each in together] == [
        [other.ids for other in each.others] for each in alone
    ]
    assert [each.finish_reason for each in together] == [each.finish_reason for each in alone]


def test_control_tokens_that_are_shown_have_a_text(llama):
    id = next(id for id in llama.tokenizer.special_ids.values() if id not in llama.stop_ids)
    request = llama.request("Tale", temperature=0, max_tokens=3, logit_bias={id: 100.0})

    async def play(worker):
        return await answer(worker, request), await answer(
            worker, replace(request, answer=AnswerOptions(shown={id: "<call>"}))
        )

    hidden, shown = run(llama, play)
    assert hidden.ids == shown.ids == (id,) * 3
    assert (hidden.text, shown.text) == ("", "<call>" * 3)


def test_leaving_cancels_within_one_step_and_gives_pages_back(llama):
    request = llama.request("Once", temperature=0, max_tokens=200, ignore_stop=True)

    async def play(worker):
        free = worker.llama.engine.pages.n_available
        stream = worker.stream(request)
        await anext(stream)
        await stream.aclose()
        steps = await worker.call(lambda llama: llama.engine.is_busy)  # runs before the step after the next one
        assert not steps
        assert worker.llama.engine.pages.n_available == free
        return worker.stats()

    stats = run(llama, play)
    assert stats.outcomes == {"cancelled": 1}
    assert stats.completion_tokens < 100
    assert (stats.running, stats.waiting) == (0, 0)


def test_leaving_before_the_first_token_cancels_too(llama):
    request = llama.request("Once", temperature=0, max_tokens=200, ignore_stop=True)

    async def play(worker):
        task = asyncio.create_task(answer(worker, request))
        await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return await worker.call(lambda llama: llama.engine.is_busy)

    assert run(llama, play) is False


def test_a_full_queue_is_429_and_says_when_to_come_again(smollm2_path):
    llama = random_llama(smollm2_path, max_running=1)
    request = llama.request("Once", temperature=0, max_tokens=100, ignore_stop=True)

    async def play(worker):
        streams = [worker.stream(request) for _ in range(3)]
        first = [asyncio.ensure_future(anext(stream)) for stream in streams[:2]]
        await asyncio.sleep(0)
        with pytest.raises(ApiError, match="2 requests") as refused:
            await anext(streams[2])
        first[1].cancel()
        await first[0]
        await streams[0].aclose()
        await worker.call(lambda llama: None)
        return refused.value, worker.stats()

    error, stats = run(llama, play, max_waiting=1)
    assert error.status == 429
    assert int(error.headers["Retry-After"]) > 0
    assert stats.outcomes["refused"] == 1
    assert stats.outcomes["cancelled"] in (1, 2)  # on a busy machine the second one has begun when it leaves
    assert set(stats.outcomes) == {"cancelled", "refused"}


def test_one_failing_request_does_not_hurt_the_others(llama):
    good = llama.request("Once", temperature=0, max_tokens=20)
    banned = {id: float("-inf") for id in range(llama.config.vocab_size)}
    bad = llama.request("Once", temperature=0, max_tokens=20, logit_bias=banned)
    alone = collect(llama._stream(good)).ids

    async def play(worker):
        return await asyncio.gather(*(answer(worker, each) for each in (good, bad, good)), return_exceptions=True)

    first, failed, last = run(llama, play)
    assert first.ids == last.ids == alone
    assert isinstance(failed, CamelidError)
    assert "no id may come" in str(failed)


def test_a_step_that_breaks_ends_what_ran_and_nothing_else(llama, monkeypatch):
    request = llama.request("Once", temperature=0, max_tokens=20)
    forward, broken = llama.engine.backend.forward, [True]

    def breaks(batch):
        if broken.pop() if broken else False:
            raise MemoryError("no room for a secret path")
        return forward(batch)

    monkeypatch.setattr(llama.engine.backend, "forward", breaks)

    async def play(worker):
        with pytest.raises(ApiError) as failed:
            await answer(worker, request)
        return failed.value, await answer(worker, request)

    error, after = run(llama, play)
    assert error.status == 500
    assert "secret" not in str(error)
    assert len(after.ids) > 0


def test_what_the_engine_refuses_is_told(llama):
    request = replace(llama.request("Once", max_tokens=5), ids=())

    async def play(worker):
        with pytest.raises(OptionError, match="no tokens"):
            await answer(worker, request)

    run(llama, play)


def test_a_fault_while_a_request_begins_hurts_that_one_only(llama, monkeypatch):
    request, add = llama.request("Once", temperature=0, max_tokens=5), llama.engine.add
    faults = [RuntimeError("a secret path")]

    def breaks(request):
        if faults:
            raise faults.pop()
        return add(request)

    monkeypatch.setattr(llama.engine, "add", breaks)

    async def play(worker):
        return await asyncio.gather(*(answer(worker, request) for _ in range(2)), return_exceptions=True)

    failed, fine = run(llama, play)
    assert (failed.status, "secret" in str(failed)) == (500, False)
    assert len(fine.ids) > 0


def test_a_call_runs_between_steps_and_its_error_comes_back(llama):
    request = llama.request("Once", temperature=0, max_tokens=60, ignore_stop=True)

    async def play(worker):
        whole = asyncio.create_task(answer(worker, request))
        vector = await worker.call(lambda llama: llama.embed("a text"))
        with pytest.raises(OptionError, match="empty"):
            await worker.call(lambda llama: llama.embed(""))
        return vector, await whole

    vector, whole = run(llama, play)
    assert vector.shape == (llama.config.dim,)
    assert len(whole.ids) == 60


def test_a_slow_reader_is_cut_off_and_holds_up_nobody(llama, monkeypatch):
    monkeypatch.setattr(worker_module, "MOST_HELD", 16)
    request = llama.request("Once", temperature=0, max_tokens=100, ignore_stop=True)

    async def play(worker):
        slow = worker.stream(request)
        first = await anext(slow)
        whole = await answer(worker, request)
        with pytest.raises(ApiError, match="behind") as cut:
            await anext(slow)
        assert not await worker.call(lambda llama: llama.engine.is_busy)
        return first, whole, cut.value

    first, whole, error = run(llama, play)
    assert first[0].token.id == whole.ids[0]
    assert len(whole.ids) == 100
    assert error.status == 503


def test_a_reader_that_is_behind_gets_all_there_is_in_few_pieces(llama, monkeypatch):
    monkeypatch.setattr(worker_module, "MOST_TAKEN", 16)
    request = llama.request("Once", temperature=0, max_tokens=40, ignore_stop=True)

    async def play(worker):
        slow = worker.stream(request)
        taken = [await anext(slow)]
        whole = await answer(worker, request)  # runs beside, and ends behind the first one
        taken += [deltas async for deltas in slow]
        return taken, whole

    taken, whole = run(llama, play)
    assert collect(delta for deltas in taken for delta in deltas).ids == whole.ids
    assert max(map(len, taken)) == 16
    assert len(taken) <= 1 + 3 + 1  # the first one, 39 in pieces of 16, and what may have come between


def test_stopping_lets_running_requests_finish_and_refuses_new_ones(llama):
    request = llama.request("Once", temperature=0, max_tokens=60, ignore_stop=True)

    async def play(worker):
        whole = asyncio.create_task(answer(worker, request))
        await asyncio.sleep(0)
        stopping = asyncio.create_task(worker.stop(20))
        await asyncio.sleep(0)
        with pytest.raises(ApiError) as refused:
            await answer(worker, request)
        assert refused.value.status == 503
        await stopping
        return await whole

    assert len(run(llama, play).ids) == 60


def test_stopping_ends_what_takes_too_long(llama):
    request = llama.request("Once", temperature=0, max_tokens=240, ignore_stop=True)

    async def play(worker):
        stream = worker.stream(request)
        await anext(stream)
        await worker.stop(0)
        with pytest.raises(ApiError, match="had to stop"):
            await answer_of(stream)

    run(llama, play)


def test_stats_count_tokens_and_times(llama):
    request = llama.request("Once upon a time", temperature=0, max_tokens=10, ignore_stop=True)

    async def play(worker):
        for _ in range(3):
            await answer(worker, request)
        return worker.stats()

    stats = run(llama, play)
    assert stats.prompt_tokens == 3 * len(request.ids)
    assert stats.completion_tokens == 30
    assert stats.outcomes == {"length": 3}
    assert sum(stats.first_token.counts) == 3
    assert sum(stats.per_token.counts) == 27
    assert stats.first_token.sum > 0
    assert stats.tokens_per_second > 0
