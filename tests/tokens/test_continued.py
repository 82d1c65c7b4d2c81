"""A last message that is continued: ids end where transformers' continue_final_message ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from camelid.errors import OptionError
from camelid.tokens.templates.chat_format import FORMATS, Message, template_format
from camelid.tokens.templates.message import ToolCall
from camelid.tokens.tokenizer import Tokenizer
from tests.tokens.vocabularies import llama3, small_bytes, small_llama2

_ROWS = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + CONTENT + '<|im_end|>' + '\n' }}{% endfor %}"
_PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
TEMPLATES = {
    "as it is": _ROWS.replace("CONTENT", "m.content") + _PROMPT,
    "trimmed": _ROWS.replace("CONTENT", "m.content | trim") + _PROMPT,
    "thoughts": _ROWS.replace("CONTENT", "m.content.split('</think>')[-1]") + _PROMPT,
}
CONTENTS = ["Well", " Well, ", "im_end", "", "a\n", "<think>b</think> c", "x<|im_end|>", "<", "é "]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return small_bytes("<|im_end|>", "<|im_start|>")


@pytest.mark.parametrize("role", ["assistant", "user"])
@pytest.mark.parametrize("name", TEMPLATES)
def test_ids_end_where_transformers_ends(name: str, role: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    (tmp_path / "tokenizer.json").write_text(tokenizer.to_json())
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": TEMPLATES[name]}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    chosen = template_format(tokenizer, TEMPLATES[name])
    for content in CONTENTS:
        rows: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}, {"role": role, "content": content}]
        messages = [Message(**row) for row in rows]
        try:
            expected = theirs.apply_chat_template(rows, tokenize=False, continue_final_message=True)
        except ValueError:
            with pytest.raises(OptionError, match="cannot be continued"):
                chosen.render(tokenizer, messages, continue_final_message=True)
            continue
        assert (
            tokenizer.decode(chosen.render(tokenizer, messages, continue_final_message=True).ids, special=True)
            == expected
        ), content
        assert 256 not in chosen.render(tokenizer, messages, continue_final_message=True).ids[-len(content) - 1 :]


@pytest.mark.parametrize("name", ["llama2", "codellama", "llama3", "llama3.1", "chatml"])
def test_formats_of_the_family_continue_their_own_answers(name: str, tokenizer: Tokenizer) -> None:
    own = {"chatml": tokenizer}.get(name) or (llama3() if name.startswith("llama3") else small_llama2())
    talk = [Message("system", "S"), Message("user", "Hi"), Message("assistant", "Well, a b")]
    ids = FORMATS[name].render(own, talk, continue_final_message=True).ids
    whole = FORMATS[name].render(own, [*talk, Message("user", "x")]).ids
    assert ids == whole[: len(ids)]
    assert own.decode(ids).endswith("Well, a b")
    with pytest.raises(OptionError, match="chat format"):
        FORMATS[name].render(own, talk)


@pytest.mark.parametrize("name", ["llama2", "codellama"])
def test_what_a_format_refuses_is_refused_in_an_answer_too(name: str) -> None:
    talk = [Message("user", "Hi"), Message("assistant", "a [/INST] b")]
    with pytest.raises(OptionError, match="which marks turns"):
        FORMATS[name].render(small_llama2(), talk, continue_final_message=True)


def test_what_cannot_be_continued(tokenizer: Tokenizer) -> None:
    chosen = template_format(tokenizer, TEMPLATES["as it is"] + "{{ 'tool_calls' if 0 }}")
    called = [Message("user", "Hi"), Message("assistant", "", (ToolCall("1", "f", "{}"),))]
    with pytest.raises(OptionError, match="calls tools, so it cannot be continued"):
        chosen.render(tokenizer, called, continue_final_message=True)
    with pytest.raises(OptionError, match="cannot be continued"):
        FORMATS["codellama70b"].render(small_llama2("<step>"), [Message("user", "Hi")], continue_final_message=True)
