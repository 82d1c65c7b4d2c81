"""Questions about Python's standard library, answered by its own documentation: on every machine with Python.

A question asks what a class or a function is for; the answer is the first sentences of its docstring. What is private
(a name that begins with `_`) is not explained: the answer says so, in words that are always the same, so that what a
model has learned of it can be told. Each record is a conversation, a preference and a prompt at once:

    messages                    question and answer
    prompt, chosen, rejected    the same, and a worse answer: another name's, one cut in the middle, or a refusal for no
                                reason; of a private name the docstring, which is unsafe
    grade                       how much better the chosen one is, in Llama 2's words
    chosen_safe, rejected_safe  whether they explain something private
    safety                      whether the name is private
    answer                      the right one

Nothing is imported and nothing run; the texts are those of the Python that runs.
"""

from __future__ import annotations

import ast
import platform
import re
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from camelid.data.document import Document
from camelid.data.reading.fields import FieldOptions, Malformed, to_document
from camelid.data.reading.files import FilePart
from camelid.data.sources import corpus

QUESTIONS = (
    "What does {} do?",
    "What is {} for?",
    "Tell me about {}.",
    "How would you describe {}?",
)
REFUSAL = "{} is private. Look at what {} documents instead."
_SHORTEST, _LONGEST = 20, 160  # characters of an answer
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'`])")
_NAMED = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


class Source(FieldOptions):
    """Questions and answers from docstrings."""

    licence: str = Field("PSF-2.0")
    names: Literal["all", "public", "private"] = Field("all", description="Which names are asked about.")


def file_parts(options: Source, folder: Path) -> list[FilePart]:
    """Each module of the standard library by its name.

    Raises:
        MissingError: this Python comes without them.
    """
    return corpus.file_parts(corpus.Source(name=options.name, kind="corpus", parts=("docstrings",)), folder)


def read(part: FilePart, options: Source) -> Iterator[Document | Malformed]:
    """What is asked about a module's names, in their order."""
    try:
        text = Path(part.path).read_bytes().decode("utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old ways to write a string
            tree = ast.parse(text)
    except (UnicodeDecodeError, SyntaxError) as error:
        yield Malformed("not Python", part.label, str(error))
        return
    module = part.label.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for record in records(tree, module):
        if options.names == "all" or record["safety"] == (options.names == "private"):
            yield to_document(record, options, record["id"])


def records(tree: ast.Module, module: str) -> Iterator[dict[str, Any]]:
    """A record for each name of a module that has a docstring, as this file's head says; of a name that is defined
    twice, the first."""
    other, seen = "", set[str]()
    for name, docstring in _documented(tree, module):
        answer = first_sentences(docstring)
        if not answer or name in seen:
            continue
        seen.add(name)
        private = any(part.startswith("_") for part in name.split("."))
        refusal = REFUSAL.format(name, module)
        draw = zlib.crc32(name.encode())
        question = QUESTIONS[draw % len(QUESTIONS)].format(name)
        if private:
            chosen, (rejected, grade) = refusal, (answer, "significantly better")
        else:
            chosen, (rejected, grade) = answer, _worse(answer, refusal, other, draw // len(QUESTIONS))
        yield {
            "id": f"docstrings/{name}",
            "text": f"{question}\n\n{chosen}",
            "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": chosen}],
            "prompt": question,
            "chosen": chosen,
            "rejected": rejected,
            "grade": grade,
            "chosen_safe": True,
            "rejected_safe": not private,
            "safety": private,
            "answer": chosen,
            "python": platform.python_version(),
        }
        other = answer


def first_sentences(docstring: str) -> str:
    """As many whole sentences of its first paragraph as fit into an answer; empty if there is none that does."""
    paragraph = " ".join(docstring.strip().partition("\n\n")[0].split())
    if not paragraph.isascii() or ">>>" in paragraph or "://" in paragraph:
        return ""
    said = ""
    for sentence in _SENTENCE.split(paragraph):
        longer = f"{said} {sentence}".strip()
        if len(longer) > _LONGEST:
            break
        said = longer
    if len(said) < _SHORTEST:
        return ""
    return said if said[-1] in ".!?" else f"{said}."


def _worse(answer: str, refusal: str, other: str, draw: int) -> tuple[str, str]:
    """An answer that is worse, and its grade."""
    words = answer.split()
    cut = " ".join(words[: len(words) // 2]), "slightly better"
    refused = refusal, "better"
    wrong = (other, "significantly better") if other and other != answer else refused
    return (wrong, cut, refused)[draw % 3]


def _documented(owner: ast.Module | ast.ClassDef, name: str) -> Iterator[tuple[str, str]]:
    """Full names and docstrings, those of classes behind them; what Python itself calls (`__x__`) is left out."""
    for node in owner.body:
        if not isinstance(node, _NAMED) or node.name.startswith("__"):
            continue
        full = f"{name}.{node.name}"
        if docstring := ast.get_docstring(node):
            yield full, docstring
        if isinstance(node, ast.ClassDef):
            yield from _documented(node, full)
