"""What lies beside a vocabulary's file, against transformers on the same folder."""

from __future__ import annotations

import io
import json
import logging
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers

from camelid.errors import FormatError
from camelid.tokens.templates.chat_format import Message, template_format
from camelid.tokens.tokenizer import Tokenizer

sentencepiece = pytest.importorskip("sentencepiece")
transformers = pytest.importorskip("transformers")

_TEXTS = [
    "hello world",
    "<|im_start|>user\nhello<|im_end|>\n",
    "hello <extra>hello",
    "hello<extra> hello",
    "<extra>hello",
    "a</s>hello",
    "<s>hello",
    " hello",
    "  x<extra>  y  <|im_end|> z",
    "<|im_end|>",
    "",
    "\n<extra>\n",
]
_CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
)


@cache
def _model() -> bytes:
    out = io.BytesIO()
    lines = ["hello world the user asks and the assistant says what it is 12 (x) " * 3] * 20
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines),
        model_writer=out,
        model_type="bpe",
        vocab_size=340,
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        minloglevel=2,
    )
    return out.getvalue()


_N = 340


def _token(text: str, special: bool = True, **rules: bool) -> dict[str, Any]:
    plain = {"lstrip": False, "rstrip": False, "single_word": False, "normalized": not special}
    return {"content": text, "special": special, **plain, **rules}


_DECODER = {
    str(_N): _token("<|im_end|>"),
    str(_N + 1): _token("<|im_start|>", rstrip=True),
    str(_N + 2): _token("<extra>", special=False, lstrip=True),
}
_ENCODER = {"<|im_end|>": _N, "<|im_start|>": _N + 1, "<extra>": _N + 2}


def _write(folder: Path, config: dict[str, Any], decoder: bool) -> None:
    (folder / "tokenizer.model").write_bytes(_model())
    (folder / "config.json").write_text('{"model_type": "llama"}')
    config = {**config, "eos_token": "<|im_end|>", "chat_template": _CHATML}
    if decoder:
        config["added_tokens_decoder"] = _DECODER
    else:
        (folder / "added_tokens.json").write_text(json.dumps(_ENCODER))
        named = {"additional_special_tokens": ["<|im_start|>"]}
        (folder / "special_tokens_map.json").write_text(json.dumps(named))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("decoder", [True, False])
@pytest.mark.parametrize("name", ["LlamaTokenizer", "CodeLlamaTokenizer", "PreTrainedTokenizerFast", None])
def test_ids_are_those_of_transformers(tmp_path: Path, name: str | None, decoder: bool) -> None:
    """LlamaTokenizer, legacy and not, with and without a space before the text; and what has no class of its own."""
    for legacy in (True, False, None):
        for space in (True, False) if legacy is None else (None,):
            config: dict[str, Any] = {"add_bos_token": True, "legacy": legacy, "add_prefix_space": space}
            if name is not None:
                config["tokenizer_class"] = name
            folder = tmp_path / f"{legacy}{space}"
            folder.mkdir()
            _write(folder, {key: value for key, value in config.items() if value is not None}, decoder)
            theirs, ours = transformers.AutoTokenizer.from_pretrained(folder), Tokenizer.open(folder)
            for text in _TEXTS:
                wanted = theirs.encode(text, add_special_tokens=False)
                assert ours.encode(text, special=True) == wanted, (config, text)
            assert (ours.bos_id, ours.eos_id, ours.adds_bos) == (theirs.bos_token_id, theirs.eos_token_id, True)
            chat = [{"role": "user", "content": " hello\n"}, {"role": "assistant", "content": "x"}]
            wanted = theirs.apply_chat_template(chat, tokenize=True, return_dict=False)
            rendered = template_format(ours, _CHATML).render(ours, [Message(**message) for message in chat]).ids
            assert rendered == wanted


def test_switches_and_roles(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(_model())
    assert Tokenizer.open(tmp_path).adds_bos  # as Meta's code and transformers up to 4 do
    config = {"add_bos_token": False, "pad_token": "[PAD]", "bos_token": _token("</s>")}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    opened = Tokenizer.open(tmp_path)
    assert (opened.adds_bos, opened.bos_id, opened.pad_id, opened.vocab_size) == (False, 2, _N, _N + 1)
    fitting = Tokenizer.open(tmp_path, rows=_N)  # the model has no row for it
    assert (fitting.pad_id, fitting.vocab_size) == (None, _N)


def test_stated_ids_beyond_the_rows_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "tokenizer.model").write_bytes(_model())
    (tmp_path / "added_tokens.json").write_text(json.dumps({"[PAD]": _N, "<x>": _N + 8}))
    with caplog.at_level(logging.WARNING):
        opened = Tokenizer.open(tmp_path, rows=_N + 1)
    assert opened.vocab_size == _N + 1
    assert "'<x>' has id 348, the model only 341 rows: left out" in caplog.text
    holes = Tokenizer.open(tmp_path)
    assert (holes.id_of("<x>"), holes.vocab_size) == (_N + 8, _N + 9)


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
def test_tokens_that_tokenizer_json_lacks(tmp_path: Path, kind: str) -> None:
    library = tokenizers.Tokenizer(tokenizers.models.BPE())
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    if kind == "byte-level":
        library.model = tokenizers.models.BPE({c: n for n, c in enumerate(alphabet)}, [])
        library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    else:
        library.model = tokenizers.models.BPE({c: n for n, c in enumerate("▁abhelo<>|im_")}, [], unk_token="▁")
        library.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    library.add_special_tokens(["</s>"])
    library.save(str(tmp_path / "tokenizer.json"))
    size = library.get_vocab_size()
    decoder = {str(size - 1): _token("</s>"), str(size): _token("<|im_end|>", rstrip=True), str(size + 1): _token("ab")}
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": decoder, "eos_token": "<|im_end|>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    theirs, ours = transformers.AutoTokenizer.from_pretrained(tmp_path), Tokenizer.open(tmp_path)
    for text in ("hello<|im_end|>  hello", "ab</s>ab", "a<|im_end|>"):
        assert ours.encode(text, special=True) == theirs.encode(text, add_special_tokens=False)
    assert ours.eos_id == size


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("added_tokens.json", {"<x>": [1, 2]}, "must have an id, has"),
        ("added_tokens.json", {"<x>": -1}, "must have an id, has -1"),
        ("added_tokens.json", {"<x>": True}, "must have an id, has True"),
        ("added_tokens.json", {"<x>": 1 << 24}, "is too high"),
        ("added_tokens.json", ["<x>"], "not a JSON object"),
        ("tokenizer_config.json", {"added_tokens_decoder": ["<x>"]}, "must be an object"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"one": _token("<x>")}}, "no id with a token"),
        ("tokenizer_config.json", {"added_tokens_decoder": {"1": ["<x>"]}}, "must be a text"),
        ("tokenizer_config.json", {"eos_token": [2, 3]}, "must be a text"),
        ("tokenizer_config.json", {"eos_token": 2}, "must be a text"),
        ("tokenizer_config.json", {"add_bos_token": "no"}, "must be true or false"),
        ("special_tokens_map.json", {"bos_token": {"content": 7}}, "must be a text"),
    ],
)
@pytest.mark.parametrize("file", ["tokenizer.model", "tokenizer.json"])
def test_wrong_files_are_one_line(tmp_path: Path, file: str, name: str, content: Any, word: str) -> None:
    (tmp_path / "tokenizer.model").write_bytes(_model())
    if file == "tokenizer.json":
        (tmp_path / file).write_text(Tokenizer.open(tmp_path).to_json(), encoding="utf-8")
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(FormatError, match=word) as caught:
        Tokenizer.open(tmp_path)
    assert "\n" not in str(caught.value)
