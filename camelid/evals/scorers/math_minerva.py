"""MATH's answers as Minerva normalises them (Lewkowycz et al. 2022, arXiv 2206.14858, app. D), as in lm-eval 0.4.13.

The order of the steps matters and is copied with its effects: "a " and "an " go wherever they stand, units are cut out
of words, all before the last `=` is dropped.
"""

from __future__ import annotations

import re

INVALID = "[invalidanswer]"
CLOSING = "I hope it is correct."
REPLACED = (
    *(("an ", ""), ("a ", ""), (".$", "$"), ("\\$", ""), (r"\ ", ""), (" ", ""), ("mbox", "text")),
    *((",\\text{and}", ","), ("\\text{and}", ","), ("\\text{m}", "\\text{}")),
)
WORDS = (
    *("square", "ways", "integers", "dollars", "mph", "inches", "ft", "hours", "km", "units", "sue", "points", "feet"),
    *("minutes", "digits", "cents", "degrees", "cm", "gm", "pounds", "meters", "meals", "edges", "students"),
    *("childrentickets", "multiples"),
)
MARKS_BEFORE = ("\\ldots",)
MARKS = (
    *("\\text{s}", "\\text{.}", "\\text{\ns}", "\\text{}^2", "\\text{}^3", "\\text{\n}", "\\text{}", r"\mathrm{th}"),
    *(r"^\circ", r"^{\circ}", r"\;", r",\!", "{,}", '"', "\\dots"),
)
"""Removed after the words that stand before them in the paper's list, so the order is as there."""
ORDER = (*WORDS[:10], *MARKS_BEFORE, *WORDS[10:], *MARKS)
REWRITTEN = (
    (r"(.*?)(\$)(.*?)(\$)(.*)", r"$\3$"),
    (r"(\\text\{)(.*?)(\})", r"\2"),
    (r"(\\textbf\{)(.*?)(\})", r"\2"),
    (r"(\\overline\{)(.*?)(\})", r"\2"),
    (r"(\\boxed\{)(.*)(\})", r"\2"),
    (r"(frac)([^{])(.)", r"frac{\2}{\3}"),
    (r"(sqrt)(\[[^\]]*\])(\w)", r"\1\2{\3}"),
    (r"(sqrt)(?!\[)([^{])", r"sqrt{\2}"),
)


def final_answer(text: str) -> str | None:
    """What stands between "Final Answer: The final answer is" and "I hope it is correct."; None without it.

    lm-eval adds the closing phrase to the text, without a space: an answer that ends before it is only found if one
    more character follows it.
    """
    match = re.search(r"Final Answer: The final answer is(.*?). I hope it is correct.", text + CLOSING)
    return match[1].strip() if match else None


def normalised(answer: str) -> str:
    """Minerva's normal form of an answer."""
    answer = answer.split("=")[-1]
    for word in WORDS:
        answer = re.sub(rf"(?<!\\)\b{word}\b", "", answer)
    for before, after in REPLACED:
        answer = answer.replace(before, after)
    for removed in ORDER:
        answer = _without(answer, removed) if removed.isalpha() else answer.replace(removed, "")
    for pattern, form in REWRITTEN:
        answer = re.sub(pattern, form, answer)
    answer = answer.replace("$", "")
    return answer.replace(",", "") if re.fullmatch(r"-?\d{1,3}(,\d{3})+", answer) else answer


def _without(answer: str, word: str) -> str:
    """Without a word, but not inside the name of a command."""
    parts = re.split(r"(\\[a-zA-Z]+)", answer)
    return "".join(part if at % 2 else part.replace(word, "") for at, part in enumerate(parts))


def last_box(text: str) -> str | None:
    """What the last `\\boxed{…}` of a text holds (`\\fbox{…}`; `\\boxed x` up to a dollar sign); None without one."""
    if "\\boxed " in text:
        return text.split("\\boxed ")[-1].split("$")[0]
    start = max(text.rfind("\\boxed"), -1)
    start = start if start >= 0 else text.rfind("\\fbox")
    if start < 0:
        return None
    depth = 0
    for at in range(start, len(text)):
        depth += (text[at] == "{") - (text[at] == "}")
        if text[at] == "}" and depth == 0:
            return text[start : at + 1].partition("{")[2][:-1]
    return None
