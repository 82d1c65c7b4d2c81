"""What draft tokens are measured on: prompts of four kinds, from this project's own files, and the answer that a good
model gives to each."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
KINDS = ("code", "summary", "json", "chat")


@dataclass(frozen=True)
class Case:
    """A prompt, the answer that a good model gives, and the JSON schema that it has to meet."""

    kind: str
    prompt: str
    answer: str
    schema: str | None = None


def cases() -> list[Case]:
    """All of them, kind by kind."""
    return [*code(), *summaries(), *filled(), *chats()]


def code() -> Iterator[Case]:
    """Code in which a variable gets another name."""
    for path, name, old, new in (
        ("camelid/engine/sequence.py", "common_prefix", "low", "left"),
        ("camelid/engine/scheduler.py", "trim", "n_needed", "needed"),
        ("camelid/engine/pages.py", "Pages", "page", "block"),
        ("camelid/tokens/stream.py", "TextStream", "self", "this"),
    ):
        source = _definition(path, name)[:1800]
        ask = f"Rewrite this Python code and rename `{old}` to `{new}`. Change nothing else."
        written = re.sub(rf"\b{old}\b", new, source)
        yield Case("code", f"{ask}\n\n```python\n{source}\n```", f"```python\n{written}\n```")


# Path, where the text begins, its words, and the answer; what stands in braces is quoted from the text.
SUMMARIES = (
    (
        "docs/tour.md",
        "1. `cli/verbs/chat.py`",
        200,
        """The text follows a request through the program. Names are resolved first: two modules “{turn the name into a
path}”, and the weights are opened by content. Memory is checked early: the engine “{chooses who computes and
checks that it fits into memory before anything is loaded}”. A central safety property is that what people
write is “{encoded as plain text and can never become one}”, so nobody can slip in a control token. Then come
the steps: the scheduler “{mixes one token for each running request with chunks of prompts that are still
being read}”.""",
    ),
    (
        "CONTRIBUTING.md",
        "**What merges at once**",
        190,
        """The document lists what is accepted without discussion, above all “{a bug with the test that shows it}”. Code
is refused if it brings “{a test that cannot fail}” or “{anything that changes tokens, weights, loss or order
silently}”. On size it says: “{Files up to 400 lines, functions up to 60. Over budget means split, or argue
in}” the pages of decisions. Errors are short: “{A user's mistake is one line of `CamelidError`: what, where,
what to do.}” And nothing is left half done: “{Nothing is half-written: write beside, then rename.}”""",
    ),
    (
        "README.md",
        "- **Formats**",
        240,
        """This is a list of features of a language model package. It reads and writes several formats, and stresses
that
“{pickles never run code}”. Strictness is a theme: “{an unknown RoPE rule, a missing template, a wrong shape
or a prompt that is too long is one line that says what to do}”. On the engine the authors stress determinism:
“{A text has the same bits alone and in a crowd, on one thread and on many.}” They also care for safety:
“{Text that a user types can never become a control token.}”""",
    ),
)


def summaries() -> Iterator[Case]:
    """A text told shorter, with quotations that stand in it."""
    ask = "Summarise the following text in a few sentences, and quote its most important sentences word for word."
    for path, start, words, told in SUMMARIES:
        text = _words(path, start, words)
        yield Case("summary", f"{ask}\n\n{text}", _quoting(text, " ".join(told.split())))


def filled() -> Iterator[Case]:
    """JSON filled from a text, by a schema."""
    for path, first, names, n in (
        ("docs/names.md", "| `CAMELID_HOME`", ("name", "what_it_does"), 6),
        ("docs/names.md", "| 0 |", ("status", "when"), 5),
        ("docs/tour.md", "| `camelid/model/config.py`", ("file", "what_you_know"), 7),
    ):
        rows = _rows(path, first, n)
        text = "\n".join(" — ".join(row) for row in rows)
        item = {
            "type": "object",
            "properties": {name: {"type": "string"} for name in names},
            "required": list(names),
            "additionalProperties": False,
        }
        items = {"type": "array", "items": item, "minItems": 3, "maxItems": n}
        schema = {
            "type": "object",
            "properties": {"items": items},
            "required": ["items"],
            "additionalProperties": False,
        }
        answer = json.dumps({"items": [dict(zip(names, row, strict=True)) for row in rows]}, ensure_ascii=False)
        yield Case(
            "json", f"List every line of this text as JSON, word for word.\n\n{text}", answer, json.dumps(schema)
        )


def chats() -> Iterator[Case]:
    """Talk, with answers of new words."""
    for question, path, start in (
        ("What is the capital of France, and what is it known for?", "docs/decisions/kernels.md", "- **"),
        ("Write a short story about a llama who wants to fly.", "docs/decisions/training.md", "- **"),
        ("Explain to a child how plants eat light.", "docs/cluster.md", "#"),
        ("Why is the sky blue?", "docs/decisions/server.md", "- **"),
    ):
        yield Case("chat", question, _words(path, start, 120))


def _definition(path: str, name: str) -> str:
    source = (ROOT / path).read_text("utf-8")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            return ast.get_source_segment(source, node) or ""
    raise SystemExit(f"{path} has no {name} any more; name another")


def _words(path: str, start: str, n: int) -> str:
    text = (ROOT / path).read_text("utf-8")
    return " ".join(text[text.index(start) :].split()[:n])


def _quoting(text: str, told: str) -> str:
    """`told` without braces; what stands in them must stand in the text."""
    for quotation in re.findall(r"\{(.*?)\}", told):
        if quotation not in text:
            raise SystemExit(f"this is not in the text any more: {quotation!r}; choose another quotation")
    return re.sub(r"[{}]", "", told)


def _rows(path: str, first: str, n: int) -> list[list[str]]:
    text = (ROOT / path).read_text("utf-8")
    lines = text[text.index(first) :].splitlines()[:n]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split(" | ")] for line in lines]
