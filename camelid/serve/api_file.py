"""The OpenAPI file: what FastAPI makes of the routes, and the errors that any of them may answer with."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from camelid.serve.errors import ErrorBody

_METHODS = ("get", "post", "put", "patch", "delete")
_NAME = "ErrorBody"

# status → what it means; of every route, of those that take something, and of those that take a body
_ANY = {
    "401": "A key is needed, and none or a wrong one came.",
    "403": "Called by a host name that is not this machine's, or from a page that may not call.",
    "431": "The head of the request is too large.",
    "500": "A fault of the server.",
    "504": "It took longer than a request may.",
}
_TAKING = {
    "400": "What is asked is not well formed, or cannot be done; `param` names what is meant.",
    "404": "There is no such model, or nothing of this name.",
}
_BODY = {
    "408": "The body did not arrive in time.",
    "413": "The body is too large.",
    "415": "The body is packed, or said to be something else than JSON.",
    "429": "Too many requests wait; try again after Retry-After seconds.",
    "503": "The server shuts down, or has no memory for this.",
}


class Api(FastAPI):
    """An application whose OpenAPI file tells of its answers as they are."""

    def openapi(self) -> dict[str, Any]:
        """The file, made once.

        FastAPI would say that wrong parameters are 422, in a shape of its own, and that a stream of events is a text.
        """
        if self.openapi_schema is None:
            file = super().openapi()
            for path in file["paths"].values():
                for method in _METHODS:
                    if method in path:
                        _correct(path[method])
            schemas = file.setdefault("components", {}).setdefault("schemas", {})
            for name in ("HTTPValidationError", "ValidationError"):
                schemas.pop(name, None)
            shape = ErrorBody.model_json_schema(ref_template="#/components/schemas/{model}")
            schemas |= {**shape.pop("$defs"), _NAME: shape}
        return super().openapi()


def _correct(operation: dict[str, Any]) -> None:
    for answer in operation["responses"].values():
        if "text/event-stream" in answer.get("content", {}):
            answer["content"]["text/event-stream"] = {}
    takes = operation["responses"].pop("422", None) is not None
    meanings = _ANY | (_TAKING if takes else {}) | (_BODY if "requestBody" in operation else {})
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{_NAME}"}}}
    for status, meaning in sorted(meanings.items()):
        operation["responses"].setdefault(status, {"description": meaning, "content": content})
