"""/v1/completions: texts are continued, or filled in."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from starlette.requests import Request
from starlette.responses import Response

from camelid.chat.llama import Llama
from camelid.engine import request as engine
from camelid.errors import ContextError
from camelid.serve.event_stream import EventStream
from camelid.serve.models import Models
from camelid.serve.openai.choices import Choice, Logged, Piece, Speller, Whole
from camelid.serve.openai.chunks import TextChunks
from camelid.serve.openai.parameters import named
from camelid.serve.openai.replies import CompletionReply, TextChoice, TextLogprobs, Usage, head
from camelid.serve.openai.requests import CompletionRequest
from camelid.serve.openai.running import Running
from camelid.serve.worker import Worker


async def complete(body: CompletionRequest, request: Request) -> Response:
    """Continue texts.

    Raises:
        ApiError: there is no such model, a parameter is wrong, or there is no room.
    """
    models: Models = request.app.state.models
    worker = models.get(body.model)
    plan = await asyncio.to_thread(_plan, worker.llama, body)
    if body.stream:
        running = await _begin(worker, body, plan)
        chunks = TextChunks(head(worker, "text_completion"), body.wants_usage, body.logprobs)
        return EventStream(running.events(chunks, body.wants_usage))
    answers, usage = await _whole(worker, body, plan)
    reply = CompletionReply(
        **head(worker, "text_completion"), choices=[_choice(answer, body.logprobs) for answer in answers], usage=usage
    )
    return Response(reply.model_dump_json(), media_type="application/json")


@dataclass(frozen=True)
class _Plan:
    """What is to be written: `n` samples after each prompt, which is ids and their text."""

    prompts: Sequence[tuple[list[int], str]]
    requests: Sequence[engine.Request]
    n: int


def _plan(llama: Llama, body: CompletionRequest) -> _Plan:
    """Everything up to the engine; a thread's work, since long prompts take their time."""
    n = max(body.n or 1, (body.best_of or 1) if body.max_tokens != 0 else 1)
    with named({"infill": "suffix", "text": "prompt"}):
        params = body.params(llama.params, n=n, max_tokens=body.max_tokens or None, logprobs=body.logprobs)
        if body.suffix is not None:
            assert isinstance(body.prompt, str)
            made = llama.infill_request(body.prompt, body.suffix, params)
            return _Plan([(list(made.ids), body.prompt)], [made] if body.max_tokens != 0 else [], n)
        prompts = []
        for prompt in body.prompts:
            ids = llama.prompt_ids(prompt)
            prompts.append((ids, prompt if isinstance(prompt, str) else llama.tokenizer.decode(ids)))
        if body.max_tokens == 0:
            for ids, _ in prompts:
                check_fits(llama, ids)
            return _Plan(prompts, [], n)
        return _Plan(prompts, [llama.request(ids, params) for ids, _ in prompts], n)


def check_fits(llama: Llama, ids: Sequence[int]) -> None:
    """Refuse ids that are only to be read, if there are too many.

    Raises:
        ContextError: there are.
    """
    if len(ids) > llama.context:
        message = f"prompt: has {len(ids)} tokens, the context is {llama.context}; shorten it or raise --context"
        raise ContextError(message, len(ids), llama.context)


async def _begin(worker: Worker, body: CompletionRequest, plan: _Plan) -> Running:
    """Reads the prompts' own log-probabilities, if they are wanted."""
    tokenizer = worker.llama.tokenizer
    choices, first = [], []
    for number, (ids, text) in enumerate(plan.prompts):
        echo = text if body.echo else ""
        logged: tuple[Logged, ...] = ()
        if body.echo and body.logprobs is not None:
            logged = await _logged(worker, ids, body.logprobs)
        for index in range(number * plan.n, (number + 1) * plan.n):
            if plan.requests:
                speller = Speller(tokenizer, offset=len(echo)) if body.logprobs is not None else None
                choices.append(Choice(index, speller=speller))
            if echo or not plan.requests:
                first.append(Piece(index, echo, (), logged, None if plan.requests else "length"))
    return Running(worker, plan.requests, choices, first=first, n_prompt=sum(len(ids) for ids, _ in plan.prompts))


async def _logged(worker: Worker, ids: Sequence[int], n: int) -> tuple[Logged, ...]:
    scored = await worker.result(engine.Request(ids=tuple(ids), wants="logprobs", top=n))
    assert isinstance(scored, engine.Scored)
    speller = Speller(worker.llama.tokenizer, starts_text=True)
    return tuple(
        speller.spell(id, None) if token is None else speller.spell(id, token.logprob, token.top)
        for id, token in zip(ids, (None, *scored.tokens), strict=True)
    )


async def _whole(worker: Worker, body: CompletionRequest, plan: _Plan) -> tuple[list[Whole], Usage]:
    running = await _begin(worker, body, plan)
    answers = await running.whole()
    if plan.n > (body.n or 1) and running.choices:
        answers = _best(answers, running.choices, plan.n, body.n or 1)
    return answers, running.usage()


def _best(answers: Sequence[Whole], choices: Sequence[Choice], n_written: int, n: int) -> list[Whole]:
    """Of each prompt's answers the n with the highest mean log-probability of a token, best first."""
    best: list[Whole] = []
    for start in range(0, len(answers), n_written):
        places = range(start, start + n_written)
        ranked = sorted(places, key=lambda at: choices[at].logprob / choices[at].n_tokens, reverse=True)
        best += [replace(answers[at], index=len(best) + rank) for rank, at in enumerate(ranked[:n])]
    return best


def _choice(answer: Whole, n_top: int | None) -> TextChoice:
    logprobs = TextLogprobs.of(answer.logged, n_top) if n_top is not None else None
    return TextChoice(index=answer.index, text=answer.text, logprobs=logprobs, finish_reason=answer.finish_reason)
