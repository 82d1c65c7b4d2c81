"""Named chat templates: found, used and kept as transformers and gguf have them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gguf
import pytest

from camelid.errors import FormatError, OptionError
from camelid.tokens.templates.chat_format import Message, choose_format
from camelid.tokens.templates.chat_templates import folder_templates
from camelid.tokens.templates.message import ToolCall
from camelid.tokens.tokenizer import Tokenizer
from camelid.weights import open_weights, save_weights
from tests.tokens.vocabularies import small_bytes
from tests.weights.models import tiny_weights

_ROWS = "{% for m in messages %}{{ m.role }}:{{ m.content }}<|end|>{% endfor %}"
PLAIN = "P" + _ROWS
_CALLS = "{% for m in messages %}{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% endif %}{% endfor %}"
TOOLS = "T{{ tools | tojson }}" + _CALLS + "<tool_call>" + _ROWS
RAG = "R" + _ROWS
TOOL = {"type": "function", "function": {"name": "f", "description": "", "parameters": {"type": "object"}}}
HI = [Message("user", "Hi")]


def _tokenizer() -> Tokenizer:
    return small_bytes("<|end|>")


def _folder(path: Path, config: dict[str, Any] | None = None, **files: str) -> Path:
    path.mkdir(exist_ok=True)
    (path / "tokenizer.json").write_text(_tokenizer().to_json())
    (path / "tokenizer_config.json").write_text(json.dumps(config or {}))
    for name, text in files.items():
        (path / "additional_chat_templates").mkdir(exist_ok=True)
        place = "chat_template.jinja" if name == "default" else f"additional_chat_templates/{name}.jinja"
        (path / place).write_text(text)
    return path


_LISTED = [{"name": name, "template": text} for name, text in (("default", PLAIN), ("tool_use", TOOLS), ("rag", RAG))]
_PLACES = {
    "a list": ({"chat_template": _LISTED}, {}),
    "files": ({}, {"default": PLAIN, "tool_use": TOOLS, "rag": RAG}),
    "files before a list": (
        {"chat_template": [{"name": "default", "template": "x"}]},
        {"default": PLAIN, "tool_use": TOOLS, "rag": RAG},
    ),
}


@pytest.mark.parametrize("place", _PLACES)
def test_the_one_for_tools_is_used_where_there_are_tools(place: str, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config, files = _PLACES[place]
    folder = _folder(tmp_path / "m", {"tokenizer_class": "PreTrainedTokenizerFast", **config}, **files)
    theirs = transformers.AutoTokenizer.from_pretrained(folder)
    found = folder_templates(folder)
    assert found == theirs.chat_template == {"default": PLAIN, "tool_use": TOOLS, "rag": RAG}
    chosen = choose_format(_tokenizer(), found.pop("default"), None, found)
    for tools in ([], [TOOL]):
        expected = theirs.apply_chat_template([{"role": "user", "content": "Hi"}], tools=tools or None, tokenize=False)
        assert _tokenizer().decode(chosen.render(_tokenizer(), HI, tools=tools).ids, special=True) == expected
    assert chosen.tool_style is not None
    assert chosen.tool_style.name == "hermes"


def test_calls_without_tools_are_written_by_the_template_that_can(tmp_path: Path) -> None:
    chosen = choose_format(_tokenizer(), PLAIN, None, {"tool_use": TOOLS})
    called = [*HI, Message("assistant", "", (ToolCall("1", "f", "{}"),))]
    assert _tokenizer().decode(chosen.render(_tokenizer(), called).ids).startswith("Tnull")


def test_without_a_default_only_tools_can_be_used() -> None:
    with pytest.raises(OptionError, match="it has templates named rag, and no default"):
        choose_format(_tokenizer(), None, None, {"rag": RAG})
    chosen = choose_format(_tokenizer(), None, None, {"tool_use": TOOLS})
    assert chosen.render(_tokenizer(), HI, tools=[TOOL]).ids
    with pytest.raises(OptionError, match="for tools only"):
        chosen.render(_tokenizer(), HI)


@pytest.mark.parametrize("chat_template", [5, ["x"], [{"name": "default"}], [{"name": 1, "template": "x"}]])
def test_a_damaged_list_is_refused(chat_template: object, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="neither a text nor a list"):
        folder_templates(_folder(tmp_path / "m", {"chat_template": chat_template}))


def test_all_are_kept_by_convert(tmp_path: Path) -> None:
    named = {"tool_use": TOOLS, "rag": RAG}
    weights = tiny_weights(chat_template=PLAIN, named_templates=named, load_tokenizer=_tokenizer, stop_ids=(256,))
    file = save_weights(weights, tmp_path / "m.gguf", format="gguf")
    fields = gguf.GGUFReader(file).fields
    assert fields["tokenizer.chat_template.tool_use"].contents() == TOOLS
    assert fields["tokenizer.chat_templates"].contents() == ["rag", "tool_use"]
    folder = save_weights(open_weights(file), tmp_path / "hf", format="hf")
    additional = _folder(tmp_path / "more", {}, default=PLAIN, **named) / "additional_chat_templates"
    copied = save_weights(open_weights(folder), tmp_path / "copied", format="hf")
    shutil.copytree(additional, copied / "additional_chat_templates")
    (copied / "tokenizer_config.json").unlink()
    (copied / "chat_template.jinja").write_text(PLAIN)
    again = save_weights(open_weights(copied), tmp_path / "again", format="hf")
    for path in (file, folder, copied, again):
        found = open_weights(path)
        assert (found.chat_template, dict(found.named_templates)) == (PLAIN, named), path


def test_all_are_kept_beside_metas_files(tmp_path: Path) -> None:
    from tests.weights.models import StubTokenizer

    weights = tiny_weights(chat_template=PLAIN, named_templates={"tool_use": TOOLS}, load_tokenizer=StubTokenizer)
    found = open_weights(save_weights(weights, tmp_path / "m", format="meta"))
    assert (found.chat_template, found.named_templates) == (PLAIN, {"tool_use": TOOLS})


def test_a_byte_order_mark_is_no_part_of_a_template(tmp_path: Path) -> None:
    folder = _folder(tmp_path / "model", {"chat_template": PLAIN}, rag=RAG)
    expected = folder_templates(folder)
    for path in (folder / "tokenizer_config.json", folder / "additional_chat_templates" / "rag.jinja"):
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert folder_templates(folder) == expected
    assert Tokenizer.open(folder).encode("ab") == _tokenizer().encode("ab")
