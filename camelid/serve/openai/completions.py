"""/v1/completions: texts are continued, or filled in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from starlette.responses import Response

from camelid.chat.answer import AnswerOptions, TextRequest
from camelid.chat.llama import Llama
from camelid.chat.logprobs import Speller
from camelid.chat.results import Generation, Logprob
from camelid.engine.request import Request as EngineRequest
from camelid.engine.request import Scored
from camelid.serve.errors import named
from camelid.serve.event_stream import EventStream
from camelid.serve.models import Models
from camelid.serve.openai.replies import CompletionReply, TextChoice, TextLogprobs, Usage, head
from camelid.serve.openai.requests import CompletionRequest
from camelid.serve.openai.stream import TextChunks, events, whole
from camelid.serve.worker import Worker

COMPLETIONS = {"text": "prompt", "infill": "suffix"}  # ours → OpenAI's


async def complete(body: CompletionRequest, models: Models) -> Response:
    """Continue texts.

    Raises:
        ApiError: there is no such model, a parameter is wrong, or there is no room.
    """
    worker = models.get(body.model)
    plan = await asyncio.to_thread(_plan, worker.llama, body)
    echoes = [await _echo(worker, body, ids, text) for ids, text in plan.prompts]
    if body.stream:
        chunks = TextChunks(head(worker, "text_completion"), body.wants_usage, body.logprobs)
        first = _first(chunks, plan, echoes)
        return EventStream(events(worker, plan.requests, chunks, n_prompt=plan.n_prompt, first=first))
    answers = await whole(worker, plan.requests)
    usage = Usage.of(answers, plan.n, plan.n_prompt)
    if answers and plan.n > (body.n or 1):
        answers, plan = _best(answers, plan.n, body.n or 1), replace(plan, n=body.n or 1)
    choices = _choices(answers, plan, echoes, body.logprobs)
    reply = CompletionReply(**head(worker, "text_completion"), choices=choices, usage=usage)
    return Response(reply.model_dump_json(), media_type="application/json")


@dataclass(frozen=True)
class _Prepared:
    """What is to be written: `n` samples after each prompt, which is ids and their text; without requests none."""

    prompts: Sequence[tuple[list[int], str]]
    requests: Sequence[TextRequest]
    n: int

    @property
    def n_prompt(self) -> int:
        """Tokens of all prompts."""
        return sum(len(ids) for ids, _ in self.prompts)


def _plan(llama: Llama, body: CompletionRequest) -> _Prepared:
    """Everything up to the engine; a thread's work, since long prompts take their time."""
    n = max(body.n or 1, (body.best_of or 1) if body.max_tokens != 0 else 1)
    with named(COMPLETIONS):
        ranks = 0 if n > (body.n or 1) else None  # which are the best is said by their log-probabilities
        n_top = body.logprobs if body.logprobs is not None else ranks
        params = body.params(llama.params, n=n, max_tokens=body.max_tokens or None, logprobs=n_top)
        if body.suffix is not None:
            assert isinstance(body.prompt, str)
            made = llama.infill_request(body.prompt, body.suffix, params)
            return _Prepared([(list(made.ids), body.prompt)], [made] if body.max_tokens != 0 else [], n)
        prompts = []
        for prompt in body.prompts:
            ids = llama.prompt_ids(prompt)
            prompts.append((ids, prompt if isinstance(prompt, str) else llama.tokenizer.decode(ids)))
        if body.max_tokens == 0:
            for ids, _ in prompts:
                llama.engine.check(EngineRequest(ids=tuple(ids), wants="logprobs"))
            return _Prepared(prompts, [], n)
        requests = [llama.request(ids, params) for ids, _ in prompts]
        if body.echo:
            answers = [AnswerOptions(offset=len(text)) for _, text in prompts]
            requests = [replace(made, answer=answer) for made, answer in zip(requests, answers, strict=True)]
        return _Prepared(prompts, requests, n)


Echo = tuple[str, tuple[Logprob, ...]]  # a prompt as its choices begin with it: nothing, if that is not wanted


async def _echo(worker: Worker, body: CompletionRequest, ids: Sequence[int], text: str) -> Echo:
    """The prompt's text, and its own log-probabilities where they are wanted."""
    if not body.echo:
        return "", ()
    return text, await _logprobs(worker, ids, body.logprobs) if body.logprobs is not None else ()


async def _logprobs(worker: Worker, ids: Sequence[int], n: int) -> tuple[Logprob, ...]:
    scored = await worker.result(EngineRequest(ids=tuple(ids), wants="logprobs", top=n))
    assert isinstance(scored, Scored)
    speller = Speller(worker.llama.tokenizer, starts_text=True)
    return tuple(
        speller.spell(id, None) if token is None else speller.spell(id, token.logprob, token.top)
        for id, token in zip(ids, (None, *scored.tokens), strict=True)
    )


def _first(chunks: TextChunks, plan: _Prepared, echoes: Sequence[Echo]) -> Iterator[bytes]:
    """The chunks of what comes before all that is written; all there is, if nothing is to be."""
    for index in range(len(echoes) * plan.n):
        text, logprobs = echoes[index // plan.n]
        if text or not plan.requests:
            yield chunks.piece(index, text, logprobs, None if plan.requests else "length")


def _best(answers: Sequence[Generation], n_written: int, n: int) -> list[Generation]:
    """Of each prompt's answers the n with the highest mean log-probability of a token, best first."""
    best: list[Generation] = []
    for start in range(0, len(answers), n_written):
        written = answers[start : start + n_written]
        best += sorted(written, key=_mean_logprob, reverse=True)[:n]
    return best


def _mean_logprob(answer: Generation) -> float:
    assert answer.logprob is not None
    return answer.logprob / answer.usage.completion_tokens


def _choices(
    answers: Sequence[Generation], plan: _Prepared, echoes: Sequence[Echo], n_top: int | None
) -> list[TextChoice]:
    choices = []
    for index in range(len(echoes) * plan.n):
        text, logprobs = echoes[index // plan.n]
        reason = "length"
        if answers:
            answer = answers[index]
            text, logprobs, reason = text + answer.text, logprobs + answer.logprobs, answer.finish_reason
        shown = TextLogprobs.of(logprobs, n_top) if n_top is not None else None
        choices.append(TextChoice(index=index, text=text, logprobs=shown, finish_reason=reason))
    return choices
