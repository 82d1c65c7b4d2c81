"""What a client is told when something is wrong: always OpenAI's shape, never a traceback."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException

from camelid.errors import CamelidError, ContextError, NotFoundError, OptionError, ResourceError

Headers = Mapping[str, str]
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_ANSWERS: Mapping[type[CamelidError], tuple[int, str | None]] = {
    ContextError: (400, "context_length_exceeded"),
    NotFoundError: (404, "not_found"),
    ResourceError: (503, None),
}
_LIBRARY_WORD = re.compile(r"^(Dictionary|List|String|Tuple|Value) should ")
RETRY_SECONDS = 2  # until there may be room again


class ApiError(CamelidError):
    """An answer that is an error.

    Args:
        status: of HTTP.
        message: what is wrong, and what to do.
        code: for programs, such as `model_not_found`.
        param: the parameter of the request that is wrong.
        headers: more of them, such as Retry-After.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: Headers | None = None,
    ) -> None:
        super().__init__(message, param=param)
        self.status, self.message, self.code = status, message, code
        self.headers = dict(headers or {})


class ErrorDetail(BaseModel):
    """What is wrong: for people, its kind, the parameter that is meant, and a word for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """An error as OpenAI's API gives it."""

    error: ErrorDetail


def as_api_error(error: CamelidError) -> ApiError:
    """Any of our errors as an answer: a request that cannot be done is 400, a lack of memory 503."""
    if isinstance(error, ApiError):
        return error
    message = " ".join(str(error).split())
    status, code = next((answer for kind, answer in _ANSWERS.items() if isinstance(error, kind)), (400, None))
    headers = {"Retry-After": str(RETRY_SECONDS)} if status == 503 else None
    return ApiError(status, message, code, error.param, headers)


def error_body(error: CamelidError) -> dict[str, Any]:
    """The JSON of an error, for answers and for the events of a stream."""
    api = as_api_error(error)
    kind = _TYPES.get(api.status, "server_error" if api.status >= 500 else "invalid_request_error")
    return {"error": {"message": api.message, "type": kind, "param": api.param, "code": api.code}}


def error_response(error: CamelidError) -> Response:
    """An error as an answer."""
    api = as_api_error(error)
    body = json.dumps(error_body(api))  # ASCII: a message may quote half a character
    return Response(body, api.status, headers=api.headers, media_type="application/json")


@contextmanager
def named(fields: Mapping[str, str]) -> Iterator[None]:
    """Have errors that are about one of `fields`, ours → the API's, name the API's.

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


def internal_error() -> ApiError:
    """For what is our own fault; the log knows more."""
    return ApiError(500, "something went wrong in the server; its log has more under the request id", "internal_error")


def invalid(errors: Sequence[Any], body: Any = None) -> ApiError:
    """A body or query that its model refuses: the first thing that is wrong, with its place."""
    first = errors[0]
    place = [str(part) for part in _place(first, body)]
    if first["type"] == "json_invalid":
        problem = first.get("ctx", {}).get("error", "")
        return ApiError(400, f"body: not valid JSON at character {first['loc'][-1]}: {problem}", "invalid_json")
    if first["type"] in ("unknown_field", "extra_forbidden"):
        where = ".".join([*place, first["ctx"]["name"]] if "ctx" in first else place)
        return ApiError(400, f"{where}: is not supported here; leave it out", "unsupported_parameter", where)
    where = ".".join(place) or "body"
    message = _problem(first)
    message = message if message.startswith(f"{where}: ") else f"{where}: {message}"
    return ApiError(400, message, None, where)


def _problem(error: Mapping[str, Any]) -> str:
    """What is wrong, in the words of JSON rather than those of a library."""
    kind, context = error["type"], error.get("ctx", {})
    if kind == "union_tag_not_found":
        return f"must be an object with {context['discriminator']}"
    if kind == "union_tag_invalid":
        return f"{context['discriminator']} is {context['tag']!r:.60}; choose {context['expected_tags']}"
    if kind in ("model_attributes_type", "model_type", "dict_type"):
        return "must be a JSON object"
    message: str = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    message = _LIBRARY_WORD.sub("must ", message).replace(" after validation", "")
    if kind == "literal_error":
        return message.replace("False", "false").replace("True", "true").replace("None", "null")
    return message


def _place(error: Mapping[str, Any], body: Any) -> list[str | int]:
    """Where something is wrong, in the client's own words: keys and places of the body that it sent.

    A path of pydantic's also names the members of unions, which no client has written.
    """
    where, *path = error["loc"]
    if where != "body":
        return path
    written: list[str | int] = []
    for at, part in enumerate(path, start=1):
        try:
            body = body[part]
        except (LookupError, TypeError):
            if at < len(path) or error["type"] != "missing":
                continue
        written.append(part)
    return written


def install(app: FastAPI) -> None:
    """Have every error of an application answered in that shape."""

    async def ours(request: Request, error: Exception) -> Response:
        assert isinstance(error, CamelidError)
        return error_response(error)

    async def validation(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return error_response(invalid(error.errors(), error.body))

    async def plain(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        message = f"{request.method} {request.url.path}: {error.detail}"
        return error_response(ApiError(error.status_code, message, headers=error.headers))

    app.add_exception_handler(CamelidError, ours)
    app.add_exception_handler(RequestValidationError, validation)
    app.add_exception_handler(HTTPException, plain)
