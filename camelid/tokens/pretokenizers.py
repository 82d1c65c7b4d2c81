r"""How byte-level tokenizers cut text before merging: GGUF's names for it ↔ parts of a tokenizer.json.

The expressions are facts of the published tokenizers: GPT-2's, Llama 3's (after cl100k), and their relatives.
`\p{N}` alone in a list means that each digit is a word of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from camelid.errors import UnsupportedError, one_of
from camelid.tokens.vocabulary import Splitter

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTRACTION = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|" + _REST
_QWEN2 = _CONTRACTION + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|" + _REST
_UPPER, _LOWER = r"\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}", r"\p{Ll}\p{Lm}\p{Lo}\p{M}"
_CASED = (
    rf"[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]*[{_LOWER}]+%s|[^\r\n\p{{L}}\p{{N}}]?[{_UPPER}]+[{_LOWER}]*%s|%s|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LETTERS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_SIGNS, _SIGNS_BACKTICK = r"[\p{P}\$\+<=>\^~\|]+", r"[\p{P}\$\+<=>\^~\|`]+"
_EAST_ASIAN = "[一-龥ࠀ-一가-\ud7ff]+"
_TEKKEN = _CASED % ("", "", r"\p{N}")
_GPT4O = _CASED % (_CONTRACTION + "?", _CONTRACTION + "?", r"\p{N}{1,3}")

# Not for a Splitter: what SentencePiece's trainer takes for words, with ▁ for spaces. Words take one space before them,
# digits stand alone, more spaces go together, and no piece mixes letters with signs.
LLAMA2_WORDS = r"▁+(?=▁)|▁?\p{L}[\p{L}\p{M}]*|\p{N}|▁?[^\s▁\p{L}\p{N}]+|▁|\s+"


def _splits(*patterns: str) -> dict[str, Any]:
    """Cut by each expression in turn, then spell bytes."""
    parts = [
        {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        for pattern in patterns
    ]
    return {"type": "Sequence", "pretokenizers": [*parts, _byte_level(use_regex=False)]}


def _byte_level(use_regex: bool) -> dict[str, Any]:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": use_regex}


_GPT2_WORDS = _byte_level(use_regex=True)
_DIGITS_APART = {
    "type": "Sequence",
    "pretokenizers": [{"type": "Digits", "individual_digits": True}, _GPT2_WORDS],
}
_NFC = {"type": "NFC"}

_gpt2 = Splitter(None, _GPT2_WORDS)
_digits = Splitter(None, _DIGITS_APART)
_llama3 = Splitter(None, _splits(LLAMA3), ignore_merges=True)
_cl100k = Splitter(None, _splits(LLAMA3))
_qwen2 = Splitter(_NFC, _splits(_QWEN2))

# The first name of a splitter is the one written; OLMo's and Qwen's own tokenizers compose characters first (NFC).
PRETOKENIZERS: dict[str, Splitter] = {
    "gpt-2": _gpt2,
    "mpt": _gpt2,
    "phi-2": _gpt2,
    "jais": _gpt2,
    "trillion": _gpt2,
    "olmo": Splitter(_NFC, _GPT2_WORDS),
    "smollm": _digits,
    "starcoder": _digits,
    "refact": _digits,
    "command-r": _digits,
    "codeshell": _digits,
    "exaone": _digits,
    "minerva-7b": _digits,
    "llama-bpe": _llama3,
    "llama3": _llama3,
    "llama-v3": _llama3,
    "falcon3": _llama3,
    "dbrx": _cl100k,
    "smaug-bpe": _cl100k,
    "qwen2": _qwen2,
    "deepseek-r1-qwen": _qwen2,
    "stablelm2": Splitter(None, _splits(_QWEN2)),
    "tekken": Splitter(None, _splits(_TEKKEN), ignore_merges=True),
    "gpt-4o": Splitter(None, _splits(_GPT4O)),
    "llama4": Splitter(None, _splits(_GPT4O)),
    "falcon": Splitter(None, _splits(_SIGNS_BACKTICK, _GPT2, "[0-9][0-9][0-9]")),
    "deepseek-coder": Splitter(None, _splits(r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", _EAST_ASIAN, r"\p{N}")),
    "default": Splitter(None, _splits(_SIGNS, _GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
}


# What the C++ loop calls an expression; the long spelling of contractions knows no ſ, which folds to s.
_STAGES = {
    _GPT2: "gpt2",
    LLAMA3: "llama3",
    LLAMA3.replace(_CONTRACTION, _LETTERS): "llama3-letters",
    _QWEN2: "qwen2",
    _QWEN2.replace(_CONTRACTION, _LETTERS): "qwen2-letters",
    _TEKKEN: "tekken",
    _GPT4O: "gpt-4o",
    r"\p{N}": "number",
    r"\p{N}+": "numbers",
    "[0-9][0-9][0-9]": "three-digits",
    _SIGNS: "punctuation",
    _SIGNS_BACKTICK: "punctuation-backtick",
    r"[\r\n]": "line-end",
    r"\s?\p{L}+": "letters",
    r"\s?\p{P}+": "signs",
    _EAST_ASIAN: "east-asian",
    LLAMA2_WORDS: "llama2",
}


def splitter_named(name: str) -> Splitter:
    """The row of `PRETOKENIZERS`.

    Raises:
        UnsupportedError: GGUF's pre-tokenizer `name` is not known here.
    """
    if name not in PRETOKENIZERS:
        raise UnsupportedError(f"tokenizer.ggml.pre: {name!r} is not known; {one_of(str(name), PRETOKENIZERS)}")
    return PRETOKENIZERS[name]


def name_of(splitter: Splitter) -> str | None:
    """GGUF's name of a splitter; None if there is none that cuts and merges alike."""
    return _names().get(_key(splitter))


@cache
def _names() -> dict[str, str]:
    names: dict[str, str] = {}
    for name, splitter in PRETOKENIZERS.items():
        names.setdefault(_key(splitter), name)
    return names


def _key(splitter: Splitter) -> str:
    """The same text for splitters that do the same, however a file spells them."""
    cutters = (_cutter(part) for part in _flat(splitter.pre_tokenizer, "pretokenizers"))
    normal = _flat(splitter.normalizer, "normalizers")
    return json.dumps(
        [normal, [cutter for cutter in cutters if cutter is not None], splitter.ignore_merges], sort_keys=True
    )


def stages_of(splitter: Splitter) -> list[str] | None:
    """What the C++ loop calls the expressions that cut, in turn; None if it does not know one of them."""
    parts = _flat(splitter.pre_tokenizer, "pretokenizers")
    spelling = [part.get("type") == "ByteLevel" for part in parts]
    if not parts or not spelling[-1] or any(spelling[:-1]):
        return None  # an expression after the spelling sees other characters
    stages = [_stage(part) for part in parts]
    names = [stage for stage in stages if stage != ""]
    return [name for name in names if name is not None] if names and None not in names else None


def _stage(part: Mapping[str, Any]) -> str | None:
    """The name of what one member cuts by; empty if it cuts nowhere."""
    kind = part["type"]
    if kind == "ByteLevel":
        return None if part.get("add_prefix_space", True) else "gpt2" if part.get("use_regex", True) else ""
    if kind == "Digits":
        return "digits" if part.get("individual_digits") else None
    if kind == "Split" and part.get("behavior") == "Isolated" and not part.get("invert"):
        return stage_of(part["pattern"].get("Regex"))
    return None


def stage_of(expression: str | None) -> str | None:
    """What the C++ loop calls an expression; None if it does not know it."""
    return _STAGES.get(expression or "")


def _flat(part: Mapping[str, Any] | None, name: str) -> list[Mapping[str, Any]]:
    """The members of nested sequences, in order."""
    if part is None:
        return []
    if part.get("type") == "Sequence":
        return [inner for member in part[name] for inner in _flat(member, name)]
    return [part]


def _cutter(part: Mapping[str, Any]) -> object:
    """What one member cuts by; None if it cuts nowhere."""
    kind = part.get("type")
    if kind == "ByteLevel" and not part.get("add_prefix_space"):
        return ["Regex", _GPT2] if part.get("use_regex", True) else None
    if kind == "Digits" and part.get("individual_digits"):
        return ["Regex", r"\p{N}"]
    if kind == "Split" and not part.get("invert") and part.get("behavior") == "Isolated":
        expression = part["pattern"].get("Regex")
        if expression is not None:
            return ["Regex", _unfold(expression)]
    return dict(part)


def _unfold(expression: str) -> str:
    """One spelling for the two ways to say that contractions ignore case."""
    return expression.replace(_LETTERS, _CONTRACTION)
