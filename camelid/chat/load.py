"""From a name or a path to a Llama that is ready."""

from __future__ import annotations

from pathlib import Path

from camelid.chat.llama import Llama
from camelid.engine.engine import Engine, EngineOptions
from camelid.engine.load import choose_backend
from camelid.errors import OptionError
from camelid.hub.catalog import DEFAULT_MODEL
from camelid.hub.store import resolve
from camelid.weights.open import open_weights
from camelid.weights.weights import Weights


def load(
    model: str | Path = DEFAULT_MODEL,
    *,
    backend: str = "auto",
    chat_format: str | None = None,
    options: EngineOptions | None = None,
    draft: str | Path | None = None,
) -> Llama:
    """Open a model: a folder or file in any format that camelid reads, or a name that `camelid pull` has fetched.

    Nothing is fetched here, and a path means no request to anyone.

    Args:
        model: path or name; the small default model if left out.
        backend: `numpy`, `torch`, `cpu` (C++), or `auto` for the best one this machine has.
        chat_format: a row of `camelid.tokens.FORMATS`, for models that bring no template of their own.
        options: context length, cache size and batching.
        draft: a smaller model with the same vocabulary that guesses ahead for requests with `draft_tokens`.

    Raises:
        OptionError: the draft model has another vocabulary.
        MissingError: the name is known but not fetched yet, or the backend is not installed.
        FormatError, UnsupportedError: the files are damaged, foreign, or of a kind camelid does not read.
        ResourceError: the model does not fit into memory.
    """
    options = options if options is not None else EngineOptions()
    weights = open_weights(resolve(model))
    smaller = _open_draft(weights, draft) if draft is not None else None
    backends = [choose_backend(opened, backend, options) for opened in (weights, smaller) if opened is not None]
    return Llama(weights, Engine(backends[0], options, *backends[1:]), chat_format)


def _open_draft(weights: Weights, draft: str | Path) -> Weights:
    smaller = open_weights(resolve(draft))
    tokenizers = [opened.tokenizer for opened in (weights, smaller) if opened.has_tokenizer]
    if len({tokenizer.fingerprint() for tokenizer in tokenizers}) > 1:
        raise OptionError(
            f"draft: {draft} cuts text into other tokens than the model; take one of the same family", param="draft"
        )
    return smaller
