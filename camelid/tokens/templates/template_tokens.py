"""Which tokens of a vocabulary a chat template writes by itself: text that a person types must never become one.

Files are careless about such tokens: `<start_of_turn>`, `[INST]`, `<｜Assistant｜>` are often added as plain text. What
counts is whether the template writes them, in so many letters or in what it renders.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from camelid.errors import FormatError, OptionError, ResourceError
from camelid.tokens.templates.jinja_template import Template
from camelid.tokens.vocabulary import CONTROL, SPACE, USER, Vocabulary

# What is rendered to see what a template adds. The words hold letters only, and a token that counts holds others too.
_TALKS: tuple[tuple[tuple[str, str], ...], ...] = (
    (("system", "Sentinel"), ("user", "Sentinel"), ("assistant", "Sentinel"), ("user", "Sentinel")),
    (("user", "Sentinel"),),
    (("user", "Sentinel"), ("assistant", "Sentinel"), ("tool", "Sentinel")),
)


def reserved(vocabulary: Vocabulary, templates: Iterable[str]) -> Vocabulary:
    """The vocabulary with the user-defined tokens that a template writes as control tokens, whose text stays visible.

    Ordinary text is never one: white space, letters and digits alone, single characters.
    """
    types, pieces = vocabulary.types, vocabulary.pieces
    sources = list(dict.fromkeys(templates))
    open_to_users = {
        pieces[id]: id for id, kind in enumerate(types) if kind == USER and _is_mark(pieces[id], vocabulary)
    }
    if not sources or not open_to_users:
        return vocabulary
    roles = {name: getattr(vocabulary, f"{name}_id") for name in ("bos", "eos", "unk", "pad")}
    names = {f"{name}_token": "" if id is None else pieces[id] for name, id in roles.items()}
    found = {id for source in sources for id in _written(source, open_to_users, names)}
    types = [CONTROL if id in found else kind for id, kind in enumerate(types)]
    return replace(vocabulary, types=types, shown=frozenset(found))


def as_in_file(vocabulary: Vocabulary) -> Vocabulary:
    """The vocabulary with the types that its file has, to be written again."""
    if not vocabulary.shown:
        return vocabulary
    types = [USER if id in vocabulary.shown else kind for id, kind in enumerate(vocabulary.types)]
    return replace(vocabulary, types=types, shown=frozenset())


def _is_mark(piece: str, vocabulary: Vocabulary) -> bool:
    if vocabulary.kind == "sentencepiece" and SPACE in piece:
        return False
    return len(piece.strip()) > 1 and not all(one.isalnum() or one.isspace() for one in piece)


def _written(source: str, tokens: Mapping[str, int], names: Mapping[str, Any]) -> set[int]:
    """Ids of the tokens that stand in the template's own text, or in what it makes of a conversation."""
    found = {id for text, id in tokens.items() if text in source}
    # composed of parts, such as '[' ~ role | upper ~ ']': its ends at least are there
    others = {text: id for text, id in tokens.items() if id not in found and text[0] in source and text[-1] in source}
    if others:
        rendered = "\n".join(_rendered(source, names))
        found |= {id for text, id in others.items() if text in rendered}
    return found


def _rendered(source: str, names: Mapping[str, Any]) -> list[str]:
    texts: list[str] = []
    with suppress(FormatError, ResourceError):  # a template that cannot be used is refused when it is
        template = Template(source)
        for talk in _TALKS:
            rows: list[dict[str, Any]] = [{"role": role, "content": content} for role, content in talk]
            for asks in (True, False):
                with suppress(OptionError):  # not every template takes every conversation
                    texts.append(template.render(rows, **names, add_generation_prompt=asks))
    return texts
