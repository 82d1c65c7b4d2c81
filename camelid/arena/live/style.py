"""What is counted in answers for style control, and whether one names its maker."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from camelid.arena.config import ArenaModel

_COUNTED: Mapping[str, re.Pattern[str]] = {
    "tokens": re.compile(r"\w+|[^\w\s]"),  # the same for all models, whatever tokens theirs are
    "headers": re.compile(r"^#{1,6}\s", re.MULTILINE),
    "lists": re.compile(r"^\s*(?:[-*+]|\d+[.)])\s", re.MULTILINE),
    "bold": re.compile(r"\*\*[^*\n]+\*\*|__[^_\n]+__"),
}
_CODE = re.compile(r"```.*?(?:```|\Z)", re.DOTALL)
_FAMILY = re.compile(r"[^\W\d_]{4,}")


def style_of(answers: Sequence[str]) -> dict[str, int]:
    """Counts over all answers of one side; headers, lists and bold words in code are none."""
    prose = [_CODE.sub("", answer) for answer in answers]
    return {
        name: sum(len(pattern.findall(text)) for text in (answers if name == "tokens" else prose))
        for name, pattern in _COUNTED.items()
    }


def names_maker(text: str, model: ArenaModel) -> bool:
    """Whether an answer has its model's name, its family's, its organisation or one of its `words`, as whole words."""
    family = _FAMILY.match(model.name)
    words = {model.name, model.organisation, *model.words, *([family[0]] if family else [])}
    wanted = "|".join(re.escape(word) for word in sorted(words) if word)
    return re.search(rf"(?<!\w)(?:{wanted})(?!\w)", text, re.IGNORECASE) is not None
