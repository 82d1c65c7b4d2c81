"""The path under which the server is reached: nothing, or the prefix that a proxy puts before every address."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar

from starlette.types import Scope

ROOT: ContextVar[str] = ContextVar("root", default="")
"""The prefix of this request, as `/llm`."""

_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")


def at_root(scope: Scope, headers: Mapping[bytes, bytes], root: str) -> tuple[Scope, str]:
    """The request as if there was no prefix, and the prefix: `root`, or the one that a proxy names.

    A proxy may leave the prefix in the address or take it away; X-Forwarded-Prefix is believed, since it changes
    nothing but the links in the answer to who sent it.
    """
    if root:
        path: str = scope["path"]
        if path == root or path.startswith(f"{root}/"):
            raw = scope.get("raw_path") or path.encode()
            scope = {**scope, "path": path[len(root) :] or "/", "raw_path": raw[len(root) :] or b"/"}
        return scope, root
    prefix = headers.get(b"x-forwarded-prefix", b"").decode("latin-1").rstrip("/")
    is_plain = len(prefix) <= 200 and _PREFIX.fullmatch(prefix) is not None and ".." not in prefix
    return scope, prefix if is_plain else ""


def link(path: str) -> str:
    """The address of one of our paths for whoever made this request."""
    return f"{ROOT.get()}{path}"
