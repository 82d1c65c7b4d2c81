"""From a name or a path to a Llama that is ready."""

from __future__ import annotations

from pathlib import Path

from camelid.chat.adapters.base import names_adapter, open_with_base
from camelid.chat.adapters.engine import AdaptedEngine
from camelid.chat.llama import Llama
from camelid.engine.engine import Engine, EngineOptions
from camelid.engine.load import choose_backend
from camelid.errors import OptionError, UnsupportedError
from camelid.hub.catalog import DEFAULT_MODEL
from camelid.hub.store import resolve
from camelid.weights.adapted import adapted
from camelid.weights.lora import Adapter
from camelid.weights.open import open_weights
from camelid.weights.weights import Weights


def load(
    model: str | Path | None = None,
    *,
    adapter: str | Path | None = None,
    backend: str = "auto",
    chat_format: str | None = None,
    options: EngineOptions | None = None,
    draft: str | Path | None = None,
) -> Llama:
    """Open a model: a folder or file in any format that camelid reads, or a name that `camelid pull` has fetched.

    Nothing is fetched here, and a path means no request to anyone.

    Args:
        model: path or name; the small default model if left out, or the adapter's own base. An adapter's folder means
            its base with it.
        adapter: folder of a LoRA adapter in PEFT's form, which is computed beside the base's weights as they are.
        backend: `numpy`, `torch`, `cpu` (C++), or `auto` for the best one this machine has.
        chat_format: a row of `camelid.tokens.FORMATS`, for models that bring no template of their own.
        options: context length, cache size and batching.
        draft: a smaller model with the same vocabulary that guesses ahead for requests with `draft_tokens`.

    Raises:
        OptionError: the draft model has another vocabulary, or the adapter another base.
        MissingError: the name is known but not fetched yet, or the backend is not installed.
        FormatError, UnsupportedError: the files are damaged, foreign, or of a kind camelid does not read.
        ResourceError: the model does not fit into memory.
    """
    options = options if options is not None else EngineOptions()
    if adapter is None and names_adapter(model):
        adapter, model = model, None
    if adapter is not None:
        found, base = open_with_base(adapter, model)
        if not found.whole.keys() & {"embed_tokens", "lm_head"}:
            llama = Llama(base, _engine(base, backend, options, draft), chat_format)
            return beside(llama, found, chat_format)
        weights = adapted(base, found)  # other ids or other scores: a model of its own
    else:
        weights = open_weights(resolve(DEFAULT_MODEL if model is None else model))
    return Llama(weights, _engine(weights, backend, options, draft), chat_format)


def beside(llama: Llama, adapter: Adapter, chat_format: str | None = None) -> Llama:
    """A loaded model with an adapter: weights, engine and forward passes are shared, pages of keys and values are not.

    Raises:
        OptionError: the adapter has another base. UnsupportedError: it has an embedding or output of its own.
    """
    own = adapter.whole.keys() & {"embed_tokens", "lm_head"}
    if own:
        raise UnsupportedError(
            f"{adapter.path}: {' and '.join(sorted(own))} were trained whole, which share no base; "
            f"merge it: camelid merge {adapter.path}"
        )
    weights = adapted(llama.weights, adapter)
    return Llama(weights, AdaptedEngine(llama.engine, llama.engine.backend.add_adapter(adapter)), chat_format)


def _engine(weights: Weights, backend: str, options: EngineOptions, draft: str | Path | None) -> Engine:
    smaller = _open_draft(weights, draft) if draft is not None else None
    backends = [choose_backend(opened, backend, options) for opened in (weights, smaller) if opened is not None]
    return Engine(backends[0], options, *backends[1:])


def _open_draft(weights: Weights, draft: str | Path) -> Weights:
    smaller = open_weights(resolve(draft))
    tokenizers = [opened.tokenizer for opened in (weights, smaller) if opened.has_tokenizer]
    if len({tokenizer.fingerprint() for tokenizer in tokenizers}) > 1:
        raise OptionError(
            f"draft: {draft} cuts text into other tokens than the model; take one of the same family", param="draft"
        )
    return smaller
