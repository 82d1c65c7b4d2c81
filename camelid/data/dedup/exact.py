"""Documents with a text seen before, letter for letter, white space at both ends aside."""

from __future__ import annotations

from camelid.data.document import Document


def key(document: Document) -> bytes | None:
    """What equal documents share; None: never a duplicate."""
    return document.text.strip().encode("utf-8", "surrogatepass") or None
