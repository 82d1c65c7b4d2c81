"""Words that give a model's name or maker away, and texts that stand where an answer failed: data, with a date.

From FastChat's `clean_battle_data.py` (lm-sys/FastChat, as of 2024), which grew word by word.
"""

from __future__ import annotations

import re

DATE = "2024-12-01"
IDENTITY = (
    *("vicuna", "lmsys", "koala", "uc berkeley", "open assistant", "laion", "chatglm", "chatgpt", "gpt-4", "openai"),
    *("anthropic", "claude", "bard", "palm", "lamda", "google", "gemini", "llama", "qianwan", "qwen", "alibaba"),
    *("mistral", "zhipu", "keg lab", "01.ai", "ai2", "tülu", "tulu", "deepseek", "hermes", "cohere", "dbrx"),
    "databricks",
)
ERRORS = (
    "network error due to high traffic. please regenerate or refresh this page.",
    "$moderation$ your input violates our content moderation guidelines.",
    "api request error. please increase the number of max tokens.",
    "**api request error** reason: the response was blocked.",
    "**api request error**",
)
UNFINISHED = ("▌", '<span class="cursor">')

_NEWER = ("gpt-4o",)  # names that go on after a word of the list
_LONGEST_FIRST = "|".join(re.escape(word) for word in sorted((*IDENTITY, *_NEWER), key=len, reverse=True))
_WHOLE = re.compile(rf"(?<!\w)(?:{_LONGEST_FIRST})(?![^\W\d_])", re.I)  # a number may follow: Qwen2, Claude3


def identity_word(text: str) -> str | None:
    """The first name that stands in a text as a whole word, or before a number; in lower case."""
    found = _WHOLE.search(text)
    return found[0].casefold() if found else None


def identity_part(text: str) -> str | None:
    """The first of `IDENTITY` that is anywhere in a text, inside other words too, as FastChat looks for it: "coherent"
    has "cohere"."""
    lower = text.lower()
    return next((word for word in IDENTITY if word in lower), None)


def failed(text: str) -> bool:
    """A fixed message of an error stands in it."""
    lower = text.lower()
    return any(each in lower for each in ERRORS)


def unfinished(text: str) -> bool:
    """The cursor of a stream is left in it."""
    return any(each in text for each in UNFINISHED)
