"""OpenAI's names of the parameters that errors of the layers below call by ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from camelid.errors import OptionError
from camelid.serve.errors import as_api_error

CHAT = {"prompt": "messages", "text": "messages", "tool_calls": "messages"}
COMPLETIONS = {"text": "prompt", "infill": "suffix"}
EMBEDDINGS = {"prompt": "input", "text": "input"}


@contextmanager
def named(fields: Mapping[str, str]) -> Iterator[None]:
    """Have errors that are about one of `fields`, ours → OpenAI's, name OpenAI's.

    Raises:
        ApiError: instead of an OptionError.
    """
    try:
        yield
    except OptionError as error:
        api = as_api_error(error)
        if api.param is not None and api.param in fields:
            message = api.message.removeprefix(f"{api.param}: ")
            api.param = fields[api.param]
            api.message = f"{api.param}: {message}"
        raise api from None
