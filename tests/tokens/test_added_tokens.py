"""Added tokens and their four rules, against the `tokenizers` library on the same file."""

from __future__ import annotations

import itertools
import os
import random
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, normalizers, pre_tokenizers

from camelid.tokens.templates.chat_format import Message, template_format
from camelid.tokens.tokenizer import Tokenizer

_BYTES = [*(f"<0x{byte:02X}>" for byte in range(256))]
_PIECES = ["<unk>", "<s>", "</s>", *_BYTES, *"▁abeZ<x>y", "▁a", "ab", "▁ab", "▁▁", "<x", "▁e"]
_MERGES = [("▁", "a"), ("a", "b"), ("▁a", "b"), ("▁", "▁"), ("<", "x"), ("▁", "e")]
_PARTS = [
    "<x>",
    "<xy>",
    "<x",
    ">",
    " ",
    "  ",
    "\n",
    "\t",
    "a",
    "b",
    "é",
    "e\u0301",
    "\u00a0",
    "Z",
    "\u3000",
    "_",
    "\x1c",
]
_RULES = ("lstrip", "rstrip", "single_word", "normalized")


def _byte_level(normalizer: Any = None) -> tokenizers.Tokenizer:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    library = tokenizers.Tokenizer(models.BPE(vocab={c: n for n, c in enumerate(alphabet)}, merges=[]))
    library.normalizer = normalizer
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return library


def _blocks(scheme: str) -> tokenizers.Tokenizer:
    vocab = {piece: id for id, piece in enumerate(_PIECES)}
    bpe = models.BPE(vocab, _MERGES, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    library = tokenizers.Tokenizer(bpe)
    if scheme == "prepend":
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        library.normalizer = normalizers.Sequence(steps)
    elif scheme == "strip":
        library.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Replace("é", "e")])
        library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=True)
    else:
        library.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    return library


_KINDS = {
    "byte-level": _byte_level,
    "byte-level, NFC": lambda: _byte_level(normalizers.NFC()),
    "byte-level, lowercase": lambda: _byte_level(normalizers.Lowercase()),
    **{name: lambda name=name: _blocks(name) for name in ("never", "first", "always", "prepend", "strip")},
}


def _with_tokens(kind: str, special: bool, rules: dict[str, bool]) -> tokenizers.Tokenizer:
    library = _KINDS[kind]()
    tokens = [AddedToken(text, special=special, **rules) for text in ("<x>", "<xy>", "Z")]
    library.add_special_tokens(tokens) if special else library.add_tokens(tokens)
    return library


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokens")


@pytest.mark.slow
@pytest.mark.parametrize("kind", _KINDS)
def test_every_combination_of_rules(kind: str, tmp_path: Path) -> None:
    """All 32 combinations of each kind; CAMELID_TEXTS=400 tries as many texts each, which takes some minutes."""
    r = random.Random(kind)
    texts = ["".join(r.choices(_PARTS, k=r.randint(1, 8))) for _ in range(int(os.environ.get("CAMELID_TEXTS", "40")))]
    differing = {}
    for special, *flags in itertools.product((True, False), *[(False, True)] * 4):
        library = _with_tokens(kind, special, dict(zip(_RULES, flags, strict=True)))
        library.save(str(tmp_path / "tokenizer.json"))
        ours = Tokenizer.open(tmp_path)
        wanted = [encoding.ids for encoding in library.encode_batch(texts, add_special_tokens=False)]
        got = [ours.encode(text, special=True) for text in texts]
        if got != wanted:
            at = next(n for n, pair in enumerate(zip(got, wanted, strict=True)) if pair[0] != pair[1])
            differing[special, *flags] = texts[at], wanted[at], got[at]
    assert not differing


_BLANKS = [(False, False, False, False, False)] * 2 + [(False, True, True, False, False)] * 4


@example(texts=["<", "<<", "\n"], rules=_BLANKS, kind="always", text="\n\n")
@settings(max_examples=300, deadline=None)
@given(
    texts=st.lists(st.text("ab<x>▁ \n.é_", min_size=1, max_size=4), min_size=1, max_size=6, unique=True),
    rules=st.lists(st.tuples(*[st.booleans()] * 5), min_size=6, max_size=6),
    kind=st.sampled_from(sorted(_KINDS)),
    text=st.text("ab<x>▁ \n.é_", max_size=24),
)
def test_tokens_that_overlap(
    folder: Path, texts: list[str], rules: list[tuple[bool, ...]], kind: str, text: str
) -> None:
    library = _KINDS[kind]()
    for content, (special, *flags) in zip(texts, rules, strict=False):
        token = AddedToken(content, special=special, **dict(zip(_RULES, flags, strict=True)))
        library.add_special_tokens([token]) if special else library.add_tokens([token])
    library.save(str(folder / "tokenizer.json"))
    ours = Tokenizer.open(folder)
    assert ours.encode(text, special=True) == library.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("kind", ["byte-level", "prepend", "first"])
def test_rules_count_in_a_chat_and_go_through_gguf(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A Phi-3 made a Llama: its marks swallow what is blank after them."""
    library = _KINDS[kind]()
    library.add_special_tokens([AddedToken(text, rstrip=True) for text in ("<|user|>", "<|end|>", "<|assistant|>")])
    library.save(str(tmp_path / "tokenizer.json"))
    ours = Tokenizer.open(tmp_path)
    template = (
        "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}<|assistant|>\n"
    )
    shown = "<|user|>\n ab<|end|>\n<|assistant|>\na<|end|>\n<|user|>\nb<|end|>\n<|assistant|>\n"
    chat = [Message("user", " ab"), Message("assistant", "a"), Message("user", "b")]
    wanted = library.encode(shown, add_special_tokens=False).ids
    assert template_format(ours, template).render(ours, chat).ids == wanted
    with caplog.at_level("WARNING"):
        fields = ours.to_gguf()
    assert "GGUF has no field for the rules (lstrip, rstrip, single_word) of <|user|>" in caplog.text
    again = Tokenizer.from_gguf(fields)
    assert template_format(again, template).render(again, chat).ids == wanted
    typed = [Message("user", "<|end|> a<|user|>  b")]
    ids = template_format(ours, template).render(ours, typed).ids
    assert [ids.count(ours.special_ids[f"<|{name}|>"]) for name in ("user", "end", "assistant")] == [1, 1, 1]
