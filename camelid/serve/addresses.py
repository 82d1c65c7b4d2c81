"""The addresses of a request: the name that it calls the server by, the page that it comes from, and the path under
which the server is reached: none, or the prefix that a proxy puts before every address.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextvars import ContextVar
from urllib.parse import urlsplit

from starlette.types import Scope

from camelid.serve.errors import ApiError
from camelid.serve.options import ServeOptions, is_loopback

ROOT: ContextVar[str] = ContextVar("root", default="")
"""The prefix of this request, as `/llm`."""

Headers = Mapping[bytes, bytes]
ANY = "*"
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(:[0-9]{1,5})?")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)+")
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,4096}")
_READABLE = b"x-request-id, x-camelid-ignored, retry-after, content-disposition"


def check_origin(method: str, headers: Headers, options: ServeOptions) -> None:
    """Refuse what comes by a wrong name, or from a page that may not call.

    Raises:
        ApiError: 403.
    """
    host, origin = (_text(headers, name) for name in (b"host", b"origin"))
    if options.is_loopback and not _is_ours(host, options):
        # A name that someone else's DNS points here would make their page same-origin with this server.
        message = (
            f"Host: {host!r} is not this machine; call it by 127.0.0.1 or localhost, or allow it with --allowed-host"
        )
        raise ApiError(403, message, "wrong_host")
    if origin and method not in ("GET", "HEAD") and not _may_call(origin, host, options):
        raise ApiError(403, f"Origin: {origin} may not call; allow it with --cors-origin", "wrong_origin")


def cors_headers(headers: Headers, options: ServeOptions) -> list[tuple[bytes, bytes]]:
    """What a browser must be told so that a page of another origin can read an answer."""
    if not options.cors_origins:
        return []
    origin = headers.get(b"origin", b"")
    extra = [(b"vary", b"Origin")]
    if origin and _is_listed(_text(headers, b"origin"), options):
        extra += [(b"access-control-allow-origin", origin), (b"access-control-expose-headers", _READABLE)]
    return extra


def preflight_headers(headers: Headers) -> dict[str, str]:
    """The answer to a browser that asks whether a page may call. The page may; which headers its client
    sends is the client's affair: OpenAI's own sends a dozen."""
    asked = headers.get(b"access-control-request-headers", b"")
    names = asked.decode() if _HEADER_NAMES.fullmatch(asked) else "authorization, content-type"
    answer = {
        "access-control-allow-methods": "GET, HEAD, POST",
        "access-control-allow-headers": names,
        "access-control-max-age": "600",
    }
    if b"access-control-request-private-network" in headers:
        answer["access-control-allow-private-network"] = "true"
    return answer


def _text(headers: Headers, name: bytes) -> str:
    return headers.get(name, b"").decode("latin-1").lower()


def _is_ours(host: str, options: ServeOptions) -> bool:
    if ANY in options.allowed_hosts:
        return True
    name = host_name(host)
    return name is not None and (is_loopback(name) or name in options.allowed_hosts)


def host_name(host: str) -> str | None:
    """The name of a Host header or of an origin's place, in lower case and without its port; None if it is neither."""
    match = _HOST.fullmatch(host.lower())
    return match[1] if match else None


def _may_call(origin: str, host: str, options: ServeOptions) -> bool:
    place = urlsplit(origin).netloc if origin.startswith(("http://", "https://")) else ""
    # behind a proxy the page's own origin has the proxy's name, whatever Host says
    return _is_listed(origin, options) or (place != "" and (place == host or host_name(place) in options.allowed_hosts))


def _is_listed(origin: str, options: ServeOptions) -> bool:
    listed = options.cors_origins
    return ANY in listed or origin in listed or f"{origin.partition('://')[0]}://{ANY}" in listed


def at_root(scope: Scope, headers: Headers, root: str) -> tuple[Scope, str]:
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
