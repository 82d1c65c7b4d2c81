"""Asks a model: requests in, answers out as they come, each with what one must know of its prompt.

`Asker` is what the runner knows of a model. `LlamaAsker` asks one that is loaded; `endpoint.py` one behind a URL.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from camelid.chat.answer import TextRequest
from camelid.chat.llama import Llama
from camelid.chat.results import Generation, Likelihood
from camelid.chat.scoring import PairEncoder, generate_all, loglikelihoods
from camelid.chat.scoring import Text as Pair
from camelid.engine.request import SamplingParams
from camelid.errors import ContextError, OptionError
from camelid.evals.task import Answer, Choices, Generate, Infill, Likelihoods, Request, Text, TextLoss, Written

_DOCUMENTS = 32  # that are read together


@dataclass(frozen=True)
class Reply:
    """An answer, and what one must know of its prompt.

    Attributes:
        n_prompt: ids of the prompt; of choices, the longest.
        ids_sha256: of the prompt's ids (those of choices with their continuations), as 32-bit numbers, the lowest byte
            first; None where they are not known.
        notes: to be counted, as "boundary moved": a token holds the end of the context and the beginning of the
            continuation.
    """

    answer: Answer
    n_prompt: int
    ids_sha256: str | None
    notes: tuple[str, ...] = ()


class Asker(Protocol):
    """A model that answers."""

    @property
    def name(self) -> str:
        """For people, and for the folder of results."""

    @property
    def has_chat(self) -> bool:
        """Whether messages can be asked."""

    def describe(self) -> Mapping[str, Any]:
        """What the model is, for the record: the same for the same model on any machine."""

    def excess(self, request: Request) -> int:
        """By how many tokens a prompt is too long; 0 if it fits."""

    def ask(self, requests: Iterable[tuple[Request, str]]) -> Iterator[tuple[int, Reply]]:
        """Answers as they come, each with its request's place.

        Args:
            requests: each with a word that its random numbers are drawn by.
        """


class LlamaAsker:
    """Asks a loaded model."""

    def __init__(self, llama: Llama, name: str | None = None) -> None:
        self.llama = llama
        self.name = name or llama.weights.path.stem.removesuffix(".gguf")

    @property
    def has_chat(self) -> bool:
        """Whether the model has a chat format."""
        try:
            return self.llama.chat_format is not None
        except OptionError:
            return False

    def describe(self) -> Mapping[str, Any]:
        """Name, files with their hashes, backend and context."""
        from camelid.evals.identity import describe_model

        return describe_model(self.llama)

    def excess(self, request: Request) -> int:
        """By how many tokens a prompt is too long; documents are read in windows, and always fit."""
        most = self.llama.context
        if isinstance(request, Text) or _n_bytes(request) < most - 256:  # a token has at least a byte
            return 0
        if isinstance(request, Choices):
            encoder = PairEncoder(self.llama.tokenizer, self.llama.prompt_ids)
            pairs = zip(request.contexts, request.continuations, strict=True)
            return max(0, max(len(encoder.encode(*pair).ids) for pair in pairs) - most)
        try:
            self._text_request(request, "")
        except ContextError as error:
            return error.n_tokens + 1 - error.context
        return 0

    def ask(self, requests: Iterable[tuple[Request, str]]) -> Iterator[tuple[int, Reply]]:
        """Answers as they come; all choices first, then what is written, then documents."""
        numbered = list(enumerate(requests))
        yield from self._ask_choices([(at, r) for at, (r, _) in numbered if isinstance(r, Choices)])
        yield from self._ask_written([(at, r, seed) for at, (r, seed) in numbered if isinstance(r, Generate)])
        yield from self._ask_texts([(at, r) for at, (r, _) in numbered if isinstance(r, Text)])

    def _ask_choices(self, requests: Sequence[tuple[int, Choices]]) -> Iterator[tuple[int, Reply]]:
        """Requests with the same beginning stand side by side, so that it is computed once."""
        owners: dict[int, _Open] = {}

        def pairs() -> Iterator[Pair]:
            encoder = PairEncoder(self.llama.tokenizer, self.llama.prompt_ids)
            at = 0
            for each in sorted(requests, key=lambda each: each[1].contexts):
                opened = _Open(encoder, *each)
                for number, pair in enumerate(opened.pairs):
                    owners[at + number] = opened
                    opened.places[at + number] = number
                    yield pair
                at += len(opened.pairs)

        for at, likelihood in loglikelihoods(self.llama.engine, pairs()):
            opened = owners.pop(at)
            opened.found[opened.places[at]] = likelihood
            if len(opened.found) == len(opened.pairs):
                yield opened.place, opened.reply()

    def _ask_written(self, requests: Sequence[tuple[int, Generate, str]]) -> Iterator[tuple[int, Reply]]:
        llama = self.llama
        asked: dict[int, TextRequest] = {}

        def texts() -> Iterator[TextRequest]:
            for at, (_, request, seed) in enumerate(requests):
                asked[at] = self._text_request(request, seed)
                yield asked[at]

        for at, result in generate_all(llama.engine, llama.tokenizer, texts()):
            place, request, _ = requests[at]
            yield place, _written(request, asked.pop(at), result)

    def _ask_texts(self, requests: Sequence[tuple[int, Text]]) -> Iterator[tuple[int, Reply]]:
        for start in range(0, len(requests), _DOCUMENTS):
            block = requests[start : start + _DOCUMENTS]
            ids = [self.llama.prompt_ids(request.text) for _, request in block]
            short = [request.text for (_, request), own in zip(block, ids, strict=True) if len(own) < 2]
            if short:
                raise OptionError(f"the document {short[0]!r} has a single token, which nothing stands before")
            found = self.llama.perplexities([request.text for _, request in block])
            for (place, _), own, each in zip(block, ids, found, strict=True):
                yield place, Reply(TextLoss(each.nll, each.n_tokens, each.n_bytes), len(own), ids_hash([own]))

    def _text_request(self, request: Generate, seed: str) -> TextRequest:
        """What the engine is asked; nothing of the model's own recommendation is left in it."""
        params = SamplingParams(
            temperature=request.temperature,
            top_p=request.top_p,
            n=request.n,
            max_tokens=request.max_tokens,
            stop=request.stops,
            seed=seed_of(request.seed, seed),
        )
        if isinstance(request.prompt, str):
            return self.llama.request(request.prompt, params)
        if isinstance(request.prompt, Infill):
            prompt = request.prompt
            own = params.model_dump(exclude={"order"}, exclude_unset=True)
            return self.llama.infill_request(prompt.prefix, prompt.suffix, order=prompt.order, **own)
        return self.llama.chat_request(request.prompt, params)


class _Open:
    """A request for choices on its way: its pairs, conditioned ones first, and what is known of them."""

    def __init__(self, encoder: PairEncoder, place: int, request: Choices) -> None:
        self.place, self._n = place, len(request.continuations)
        asked = list(zip(request.contexts, request.continuations, strict=True))
        if request.unconditioned is not None:
            asked += [(request.unconditioned, each) for each in request.continuations]
        self.pairs = [encoder.encode(*each) for each in asked]
        self.places: dict[int, int] = {}
        self.found: dict[int, Likelihood] = {}

    def reply(self) -> Reply:
        """The answer, when all is known."""
        found = [self.found[at] for at in range(len(self.pairs))]
        own, alone = found[: self._n], found[self._n :]
        answer = Likelihoods(
            tuple(each.logprob for each in own),
            tuple(each.is_greedy for each in own),
            tuple(each.n_tokens for each in own),
            tuple(each.logprob for each in alone),
        )
        longest = max(pair.start for pair in self.pairs[: self._n])
        notes = ("boundary moved",) if any(pair.n_moved for pair in self.pairs[: self._n]) else ()
        return Reply(answer, longest, ids_hash([pair.ids for pair in self.pairs[: self._n]]), notes)


def _written(request: Generate, asked: TextRequest, result: Generation) -> Reply:
    results = (result, *result.others)
    answer = Written(
        tuple(each.text for each in results),
        tuple(each.finish_reason for each in results),
        tuple(len(each.ids) for each in results),
    )
    cut = any(each.finish_reason == "length" and len(each.ids) < request.max_tokens for each in results)
    return Reply(answer, len(asked.ids), ids_hash([asked.ids]), ("context full",) if cut else ())


def seed_of(seed: int, word: str) -> int:
    """The seed of one item's random numbers, below 2^63."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{word}".encode()).digest()[:8], "big") >> 1


def ids_hash(texts: Iterable[Sequence[int]]) -> str:
    """SHA-256 of ids, as 32-bit numbers, the lowest byte first; -1 between two texts."""
    digest = hashlib.sha256()
    for ids in texts:
        numbers = array("i", [*ids, -1])
        if numbers.itemsize != 4 or array("H", [1]).tobytes() != b"\1\0":
            numbers.byteswap()
        digest.update(numbers.tobytes())
    return digest.hexdigest()


def _n_bytes(request: Choices | Generate) -> int:
    """Bytes of the longest prompt, with what follows."""
    if isinstance(request, Choices):
        pairs = zip(request.contexts, request.continuations, strict=True)
        return max(len(context.encode()) + len(continuation.encode()) for context, continuation in pairs)
    prompt = request.prompt
    if isinstance(prompt, str):
        return len(prompt.encode())
    if isinstance(prompt, Infill):
        return len(prompt.prefix.encode()) + len(prompt.suffix.encode())
    return sum(len(str(message.content).encode()) + 32 for message in prompt)
