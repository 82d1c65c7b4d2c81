"""Documents with an URL seen before: the same page, crawled twice."""

from __future__ import annotations

from urllib.parse import urlsplit

from camelid.data.document import Document

_PORTS = {"http": "80", "https": "443"}


def normal_url(url: str) -> str:
    """An URL as it is compared: without scheme, fragment, usual port and last slash; the host in lower case."""
    parts = urlsplit(url.strip())
    host = parts.netloc.lower()
    port = _PORTS.get(parts.scheme.lower())
    if port is not None:
        host = host.removesuffix(f":{port}")
    query = f"?{parts.query}" if parts.query else ""
    return f"{host}{parts.path.rstrip('/')}{query}"


def key(document: Document) -> bytes | None:
    """What equal documents share; None: never a duplicate."""
    if not document.url:
        return None
    try:
        normal = normal_url(document.url)
    except ValueError:  # not an URL, as "http://[" is none
        normal = document.url
    return normal.encode("utf-8", "replace") or None
