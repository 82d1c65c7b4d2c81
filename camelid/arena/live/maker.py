"""Whether an answer names its maker."""

from __future__ import annotations

import re

from camelid.arena.config import ArenaModel

_FAMILY = re.compile(r"[^\W\d_]{4,}")


def names_maker(text: str, model: ArenaModel) -> bool:
    """Whether an answer has its model's name, its family's, its organisation or one of its `words`, as whole words."""
    family = _FAMILY.match(model.name)
    words = {model.name, model.organisation, *model.words, *([family[0]] if family else [])}
    wanted = "|".join(re.escape(word) for word in sorted(words) if word)
    return re.search(rf"(?<!\w)(?:{wanted})(?!\w)", text, re.IGNORECASE) is not None
