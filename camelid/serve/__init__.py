"""Over HTTP: OpenAI's API, the pages, and what a server needs around them. One thread owns each model's engine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from camelid.serve.app import create_app
    from camelid.serve.models import Models
    from camelid.serve.options import ServeOptions
    from camelid.serve.server import serve
    from camelid.serve.worker import Worker

__all__ = ["Models", "ServeOptions", "Worker", "create_app", "serve"]

_HOMES = {
    "Models": "models",
    "ServeOptions": "options",
    "Worker": "worker",
    "create_app": "app",
    "serve": "server",
}


def __getattr__(name: str) -> Any:
    from camelid._lazy import load_name

    return load_name(__name__, _HOMES, name)
