"""Errors of what lies below name things by our words; a client is told by its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from camelid.errors import OptionError
from camelid.serve.errors import ApiError, as_api_error


@contextmanager
def named(words: Mapping[str, str]) -> Iterator[None]:
    """Errors that are about one of `words` name the parameter that it stands for.

    Raises:
        ApiError: instead of an OptionError.
    """
    try:
        yield
    except OptionError as error:
        api = as_api_error(error)
        param = words.get(api.param or "", api.param)
        message = api.message.removeprefix(f"{api.param}: ")
        told = f"{param}: {message}" if message != api.message else api.message
        raise ApiError(api.status, told, api.code, param) from None
