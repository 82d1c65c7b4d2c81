"""Text in, text out: a loaded model that generates, converses, fills in, and tells what it finds likely."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray

from camelid.chat.answer import Answer, AnswerOptions, TextRequest, Tools, collect
from camelid.chat.results import Delta, Generation, Likelihood, NextTable, NextToken, Perplexity, Usage
from camelid.chat.sampling_choices import (
    ChatKeywords,
    GenerateKeywords,
    InfillKeywords,
    OrderlessKeywords,
    SamplingKeywords,
    recommended,
)
from camelid.engine.engine import Engine
from camelid.engine.request import Request, Rows, SamplingParams
from camelid.engine.sampling.beam import Beam, beam_search
from camelid.engine.sampling.steps import distribution
from camelid.errors import OptionError
from camelid.tokens.infill import encode_infill, infill_stop_ids
from camelid.tokens.templates.chat_format import ChatFormat, Message, choose_format
from camelid.tokens.templates.tool_styles import control_ids, tool_names
from camelid.tokens.tokenizer import Tokenizer
from camelid.weights.open import Weights

if TYPE_CHECKING:
    from camelid.chat.constrain import Constrainer, Form
    from camelid.chat.forms import Constraint

Prompt = str | Sequence[int]
Messages = str | Sequence[Message]


class Llama:
    """A model with its tokenizer and engine.

    Every method takes sampling choices as a `SamplingParams`, or as keywords that change the model's own defaults
    (`llama.generate("Once", temperature=0, max_tokens=20)`). A prompt is text, or ids to be used as they are.
    """

    def __init__(self, weights: Weights, engine: Engine, chat_format: str | None = None) -> None:
        self.weights, self.engine, self.config = weights, engine, weights.config
        self.tokenizer = weights.tokenizer
        self._chat_format_name = chat_format
        self._constrainers: dict[tuple[int, ...], Constrainer] = {}

    @property
    def context(self) -> int:
        """Most ids that prompt and answer may have together."""
        return self.engine.context

    @cached_property
    def chat_format(self) -> ChatFormat:
        """How conversations become ids: the format asked for, or the model's own template.

        Raises:
            OptionError: the model brings no template and no format was named.
        """
        weights = self.weights
        return choose_format(self.tokenizer, weights.chat_template, self._chat_format_name, weights.named_templates)

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        """Ids that end a text: those the model's files name, and the tokenizer's own."""
        eos = self.tokenizer.eos_id
        return tuple(sorted({*self.weights.stop_ids, *([] if eos is None else [eos])}))

    @cached_property
    def params(self) -> SamplingParams:
        """The sampling defaults: the model's own recommendation where its files hold one that can be used."""
        return recommended(self.weights, self.engine.backend.absent)

    def generate(
        self, prompt: Prompt, params: SamplingParams | None = None, **choices: Unpack[GenerateKeywords]
    ) -> Generation:
        """Continue a prompt; `form` constrains the output.

        Raises:
            OptionError: the prompt does not fit the context, or an option is wrong.
        """
        return collect(self.stream(prompt, params, **choices))

    def stream(
        self, prompt: Prompt, params: SamplingParams | None = None, **choices: Unpack[GenerateKeywords]
    ) -> Iterator[Delta]:
        """What `generate` writes, piece by piece as it comes; a mistake is raised at once.

        Raises:
            OptionError: as `generate`.
        """
        return self._stream(self.request(prompt, params, **choices))

    def request(
        self,
        prompt: Prompt,
        params: SamplingParams | None = None,
        *,
        form: Form | None = None,
        **changes: Unpack[SamplingKeywords],
    ) -> TextRequest:
        """What `generate` asks of the engine. This and its siblings may be called from any thread.

        Raises:
            OptionError: as `generate`.
        """
        return self._request(self.prompt_ids(prompt), self._params(params, changes), self.stop_ids, form)

    def chat(
        self, messages: Messages, params: SamplingParams | None = None, **choices: Unpack[ChatKeywords]
    ) -> Generation:
        """Answer a conversation (or one question, as text) in the model's chat format: in text, and in `tool_calls` if
        `tools` are given. `chat_request` has the keywords."""
        return collect(self.stream_chat(messages, params, **choices))

    def stream_chat(
        self, messages: Messages, params: SamplingParams | None = None, **choices: Unpack[ChatKeywords]
    ) -> Iterator[Delta]:
        """What `chat` answers, piece by piece as it comes; a mistake is raised at once."""
        return self._stream(self.chat_request(messages, params, **choices))

    def chat_request(
        self,
        messages: Messages,
        params: SamplingParams | None = None,
        *,
        form: Form | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        parallel_tool_calls: bool = True,
        continue_final_message: bool | None = None,
        **changes: Unpack[SamplingKeywords],
    ) -> TextRequest:
        """What `chat` asks of the engine.

        Args:
            messages: the conversation, or one question.
            params, form, changes: as `generate`.
            tools: functions that the model may call, as OpenAI's API has them.
            parallel_tool_calls: False: the answer ends with its first call.
            continue_final_message: go on with the last message instead of beginning an answer; left out: if it is the
                assistant's, as transformers' pipeline does.

        Raises:
            OptionError: the conversation or the tools do not suit the format, or as `generate`.
        """
        messages = [Message("user", messages)] if isinstance(messages, str) else list(messages)
        continues = continue_final_message
        if continues is None:
            continues = len(messages) > 0 and messages[-1].role == "assistant"
        ids = self.chat_format.render(self.tokenizer, messages, tools=tools, continue_final_message=continues).ids
        answer = AnswerOptions(starts_text=not continues)
        style = self.chat_format.tool_style if tools else None
        if style is not None:
            found_by = Tools(style, tool_names(tools), only_one=not parallel_tool_calls)
            answer = replace(answer, tools=found_by, shown=control_ids(self.tokenizer, style))
        stops = tuple(sorted({*self.stop_ids, *self.chat_format.stop_ids(self.tokenizer)}))
        return self._request(ids, self._params(params, changes), stops, form, answer)

    def beams(
        self, prompt: Prompt, width: int, *, length_penalty: float = 1.0, max_tokens: int | None = None
    ) -> Generation:
        """The likeliest continuation that beam search finds; the other beams are its `others`.

        Raises:
            ResourceError: the cache has no room for so many beams.
        """
        ids, started = self.prompt_ids(prompt), time.perf_counter()
        found = beam_search(
            self.engine,
            ids,
            width,
            max_tokens=max_tokens,
            length_penalty=length_penalty,
            stop_ids=self.stop_ids,
        )
        seconds = time.perf_counter() - started
        results = [_from_beam(beam, self.tokenizer, len(ids), seconds) for beam in found]
        return results[0].with_others(tuple(results[1:]))

    def infill(
        self, prefix: str, suffix: str, params: SamplingParams | None = None, **choices: Unpack[InfillKeywords]
    ) -> Generation:
        """What stands between `prefix` and `suffix`, for models trained to fill in (Code Llama).

        Raises:
            OptionError: the model's vocabulary has no fill-in tokens.
        """
        return collect(self.stream_infill(prefix, suffix, params, **choices))

    def stream_infill(
        self, prefix: str, suffix: str, params: SamplingParams | None = None, **choices: Unpack[InfillKeywords]
    ) -> Iterator[Delta]:
        """What `infill` writes, piece by piece as it comes; a mistake is raised at once.

        Raises:
            OptionError: as `infill`.
        """
        return self._stream(self.infill_request(prefix, suffix, params, **choices))

    def infill_request(
        self,
        prefix: str,
        suffix: str,
        params: SamplingParams | None = None,
        *,
        order: Literal["psm", "spm"] = "psm",
        **changes: Unpack[OrderlessKeywords],
    ) -> TextRequest:
        """What `infill` asks of the engine.

        Raises:
            OptionError: as `infill`.
        """
        ids = encode_infill(self.tokenizer, prefix, suffix, order=order)
        stops = tuple(sorted({*self.stop_ids, *infill_stop_ids(self.tokenizer)}))
        return self._request(ids, self._params(params, changes), stops)

    def next(self, prompt: Prompt, n: int = 10, params: SamplingParams | None = None) -> NextTable:
        """The likeliest next tokens: over the raw distribution, or over what sampling with `params` leaves."""
        ids = self.prompt_ids(prompt)
        last = Request(ids=tuple(ids), wants="logits", rows=range(len(ids) - 1, len(ids)))
        (logits,) = self._rows(last)
        raw = SamplingParams(temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, typical=1.0)
        probabilities = distribution(logits, params or raw, ids)
        order = np.argsort(-probabilities, kind="stable")
        order = order[~np.isin(order, self.engine.backend.absent)][:n]
        cumulative = np.cumsum(probabilities[order])
        with np.errstate(divide="ignore"):
            logs = np.log(probabilities[order])
        rows = tuple(
            NextToken(rank, int(id), self.tokenizer.piece(int(id)), float(probabilities[id]), float(total), float(log))
            for rank, (id, total, log) in enumerate(zip(order, cumulative, logs, strict=True), start=1)
        )
        return NextTable(tuple(ids), rows, float(probabilities.sum()))

    def logits(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Scores of every next token after each id, float32 (len(ids), vocab_size)."""
        return self._rows(Request(ids=tuple(ids), wants="logits"))

    def embed(self, prompt: Prompt) -> NDArray[np.float32]:
        """A vector for a text, (D,): the mean over all positions of the hidden states after the final norm.

        Raises:
            OptionError: the prompt is empty, outside the vocabulary or longer than the context.
        """
        (mean,) = self._rows(Request(ids=tuple(self.prompt_ids(prompt)), wants="hidden", pooled=True))
        return mean

    def loglikelihood(self, context: Prompt, continuation: str) -> Likelihood:
        """How likely `continuation` is after `context`.

        The continuation begins where the whole text's tokens part from the context's own. Spaces that end the context
        count to the continuation, as evaluation harnesses have it.
        """
        return self.loglikelihoods([(context, continuation)])[0]

    def loglikelihoods(self, pairs: Iterable[tuple[Prompt, str]]) -> list[Likelihood]:
        """`loglikelihood` of many pairs of context and continuation, computed together.

        What texts begin with is computed once: a context costs the same for one continuation and for a hundred.
        """
        found = dict(self.iter_loglikelihoods(pairs))
        return [found[place] for place in range(len(found))]

    def iter_loglikelihoods(self, pairs: Iterable[tuple[Prompt, str]]) -> Iterator[tuple[int, Likelihood]]:
        """The same as they become known, each with its pair's place; of endless pairs little is held at a time."""
        from camelid.chat.scoring import PairEncoder, loglikelihoods

        encoder = PairEncoder(self.tokenizer, self.prompt_ids)
        return loglikelihoods(self.engine, (encoder.encode(*pair) for pair in pairs))

    def generate_all(
        self, prompts: Iterable[Prompt], params: SamplingParams | None = None, **changes: Unpack[GenerateKeywords]
    ) -> list[Generation]:
        """Continue many prompts, written together; each text is the one that `generate` gives.

        Raises:
            OptionError: as `generate`.
        """
        found = dict(self.iter_generations(prompts, params, **changes))
        return [found[place] for place in range(len(found))]

    def iter_generations(
        self, prompts: Iterable[Prompt], params: SamplingParams | None = None, **changes: Unpack[GenerateKeywords]
    ) -> Iterator[tuple[int, Generation]]:
        """The same as they are finished, each with its prompt's place; of endless prompts little is held at a time."""
        from camelid.chat.scoring import generate_all

        return generate_all(
            self.engine, self.tokenizer, (self.request(prompt, params, **changes) for prompt in prompts)
        )

    def perplexity(self, text: str) -> Perplexity:
        """How surprised the model is by a text, read in windows of the whole context.

        Each token counts once. A window's first token is seen only as context, so the first token of the text has
        no probability unless a BOS stands before it.
        """
        return self.perplexities([text])[0]

    def perplexities(self, texts: Iterable[str]) -> list[Perplexity]:
        """`perplexity` of many texts, computed together."""
        texts = list(texts)
        ids = [self.prompt_ids(text) for text in texts]
        if any(len(own) < 2 for own in ids):
            raise OptionError("perplexity: the text must have at least two tokens", param="perplexity")
        from camelid.chat.scoring import negative_loglikelihoods

        totals = negative_loglikelihoods(self.engine, ids)
        return [Perplexity(nll, n, len(text.encode())) for (nll, n), text in zip(totals, texts, strict=True)]

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Ids of a plain prompt: text gets the BOS that the model expects; ids stay as they are.

        Raises:
            OptionError: the prompt is empty, or an id lies outside the vocabulary.
        """
        if isinstance(prompt, str):
            ids = self.tokenizer.encode(prompt, bos=self.tokenizer.adds_bos)
        else:
            ids = list(map(int, prompt))
        if not ids:
            raise OptionError("prompt: is empty; give at least one character", param="prompt")
        if min(ids) < 0 or max(ids) >= self.config.vocab_size:
            wrong = next(id for id in ids if not 0 <= id < self.config.vocab_size)
            raise OptionError(
                f"prompt: id {wrong} lies outside the vocabulary of {self.config.vocab_size} ids", param="prompt"
            )
        return ids

    def close_forms(self) -> None:
        """End the processes that constrain output; a request with a form that still runs fails."""
        for constrainer in tuple(self._constrainers.values()):
            constrainer.close()

    def _constrain(self, form: Form, stop_ids: tuple[int, ...]) -> Constraint:
        from camelid.chat.constrain import Constrainer

        if stop_ids not in self._constrainers:
            made = Constrainer(self.tokenizer, stop_ids, self.config.vocab_size)
            self._constrainers.setdefault(stop_ids, made)  # several threads may come here
        return self._constrainers[stop_ids].start(form)

    def _params(self, params: SamplingParams | None, changes: Mapping[str, Any]) -> SamplingParams:
        params = params if params is not None else self.params
        return params.with_(**changes) if changes else params

    def _request(
        self,
        ids: list[int],
        params: SamplingParams,
        stop_ids: tuple[int, ...],
        form: Form | None = None,
        answer: AnswerOptions | None = None,
    ) -> TextRequest:
        answer = answer if answer is not None else AnswerOptions()
        if form is not None and not params.stop and not params.stop_ids:  # else the answer may end before its form does
            answer = replace(answer, promise=form.promise)
        request = TextRequest(ids=tuple(ids), params=params, stop_ids=stop_ids, answer=answer)
        # Before the first piece is asked for, so that a mistake shows at once.
        self.engine.check(request, has_form=form is not None)
        if form is not None:  # last, since it may take long
            request = replace(request, constraint=self._constrain(form, stop_ids))
        return request

    def _rows(self, request: Request) -> NDArray[np.float32]:
        result = self.engine.result(request)
        assert isinstance(result, Rows)
        return result.rows

    def _stream(self, request: TextRequest) -> Iterator[Delta]:
        answer = Answer(self.tokenizer, request)
        for token in self.engine.stream(request):
            delta = answer.push(token)
            if delta is not None:
                yield delta
            if answer.done:
                return


def _from_beam(beam: Beam, tokenizer: Tokenizer, n_prompt: int, seconds: float) -> Generation:
    usage = Usage(n_prompt, len(beam.ids), 0)
    text = b"".join(tokenizer.token_bytes(id) for id in beam.ids).decode("utf-8", "replace")
    return Generation(text, beam.ids, beam.finish_reason, usage, (), seconds, seconds)
