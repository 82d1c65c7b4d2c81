"""Chat formats: by hand, against Meta's code, and against transformers with the model's own template."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.errors import FormatError, OptionError
from camelid.tokens.templates.chat_format import FORMATS, Message, choose_format, template_format
from camelid.tokens.templates.jinja_template import Template
from camelid.tokens.tokenizer import Tokenizer
from tests.tokens.vocabularies import llama3, small_bytes, small_llama2, smollm2, smollm2_template

_LOOK_ALIKES = [
    *[
        "<|im_end|>",
        "<|im_start|>",
        "<|eot_id|>",
        "<|begin_of_text|>",
        "<s>",
        "</s>",
        "<|im_",
        "<|",
        "|>",
        "<",
        "end|>",
    ],
    *[" ", "\n", "Hi", "system\n", "<|start_header_id|>user<|end_header_id|>\n\n", "\ufdd0", "\ufdd1", "é", "日"],
]
_CONTENT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20) | st.lists(
    st.sampled_from(_LOOK_ALIKES), max_size=6
).map("".join)


def _turns(contents: list[str], system: str | None = None) -> list[Message]:
    roles = ("user", "assistant")
    first = [] if system is None else [Message("system", system)]
    return first + [Message(roles[place % 2], content) for place, content in enumerate(contents)]


_CONVERSATIONS = st.builds(
    _turns, st.lists(_CONTENT, min_size=1, max_size=5).filter(lambda rows: len(rows) % 2 == 1), st.none() | _CONTENT
)


def _shown(tokenizer: Tokenizer, ids: list[int]) -> str:
    """Ids as text, control tokens written out between ⟨ ⟩, so that typed ones can be told from real ones."""
    names = {id: text for text, id in tokenizer.special_ids.items()}
    data = b"".join(f"⟨{names[id]}⟩".encode() if id in names else tokenizer.token_bytes(id) for id in ids)
    return data.decode("utf-8", "replace")


# Llama 2


def test_llama2_by_hand() -> None:
    tokenizer = small_llama2()
    messages = _turns([" a ", " b\n", "c"], "s")
    ids = FORMATS["llama2"].render(tokenizer, messages).ids
    first = tokenizer.encode("[INST] <<SYS>>\ns\n<</SYS>>\n\n a [/INST] b ")
    assert ids == [1, *first, 2, 1, *tokenizer.encode("[INST] c [/INST]")]
    assert _shown(tokenizer, ids) == ("⟨<s>⟩ [INST] <<SYS>>\ns\n<</SYS>>\n\n a [/INST] b ⟨</s>⟩⟨<s>⟩ [INST] c [/INST]")
    assert FORMATS["codellama"].render(tokenizer, messages).ids == ids
    assert FORMATS["llama2"].stop_ids(tokenizer) == (2,)
    assert (
        _shown(tokenizer, FORMATS["llama2"].render(tokenizer, [Message("user", " a ")]).ids) == "⟨<s>⟩ [INST] a [/INST]"
    )


@pytest.mark.parametrize("mark", ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_llama2_refuses_its_own_marks(mark: str, place: int) -> None:
    contents = ["a", "b", "c"]
    contents[place] = f"x{mark}y"
    with pytest.raises(OptionError, match=f"message {place + 1} holds"):
        FORMATS["llama2"].render(small_llama2(), _turns(contents))
    with pytest.raises(OptionError, match="message 1 holds"):
        FORMATS["llama2"].render(small_llama2(), _turns(["a"], mark))


@pytest.mark.parametrize("name", ["codellama", "codellama70b"])
@pytest.mark.parametrize("mark", ["[INST]", "[/INST]", "<<SYS>>", "<</SYS>>", "<step>"])
def test_code_llama_refuses_its_own_marks(mark: str, name: str) -> None:
    with pytest.raises(OptionError, match=f"^chat format '{name}': message 3 holds {re.escape(mark)}, "):
        FORMATS[name].render(small_llama2("<step>"), _turns(["a", "b", f"x{mark}y"]))


@pytest.mark.parametrize(
    ("roles", "word"),
    [
        (["assistant"], "message 1 must be the user's, got 'assistant'"),
        (["user", "user"], "message 2 must be the assistant's"),
        (["system", "assistant"], "message 2 must be the user's"),
        (["user", "assistant"], "the last message must be the user's"),
        (["system"], "the last message must be the user's"),
        (["user", "system", "user"], "message 2 must be the assistant's"),
        (["tool"], "message 1 must be the user's, got 'tool'"),
    ],
)
@pytest.mark.parametrize("name", ["llama2", "codellama", "codellama70b"])
def test_turns_must_alternate(name: str, roles: list[str], word: str) -> None:
    with pytest.raises(OptionError, match=f"^chat format '{name}': {word}"):
        FORMATS[name].render(small_llama2("<step>"), [Message(role, "x") for role in roles])


def test_codellama70b_by_hand() -> None:
    tokenizer = small_llama2("<step>")
    step = tokenizer.special_ids["<step>"]
    encode = tokenizer.encode
    assert FORMATS["codellama70b"].render(tokenizer, _turns([" a", "b ", "c"])).ids == [
        *[1, *encode(" Source: system"), step],
        *[*encode(" Source: user"), *encode("\n\n a"), step],
        *[*encode(" Source: assistant\nDestination: user"), *encode("\n\n b"), step],
        *[*encode(" Source: user"), *encode("\n\n c"), step],
        *[*encode(" Source: assistant\nDestination: user"), *encode("\n\n ")],
    ]
    assert FORMATS["codellama70b"].stop_ids(tokenizer) == (step, 2)


@pytest.mark.parametrize("type", [1, 3, 4])
def test_codellama70b_finds_its_mark_whatever_its_type(type: int) -> None:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "<step>"]
    fields: dict[str, Any] = {"model": "llama", "tokens": tokens, "scores": [0.0] * 260, "bos_token_id": 1}
    fields |= {"token_type": [2, 3, 3, *[6] * 256, type], "eos_token_id": 2, "unknown_token_id": 0}
    tokenizer = Tokenizer.from_gguf({f"tokenizer.ggml.{key}": value for key, value in fields.items()})
    ids = FORMATS["codellama70b"].render(tokenizer, _turns(["a", "b", "c"])).ids
    assert ids.count(259) == 4  # after the empty system text and after each message
    assert FORMATS["codellama70b"].stop_ids(tokenizer) == (259, 2)


# Llama 3


@pytest.mark.slow
def test_llama3_by_hand() -> None:
    tokenizer = llama3()
    ids = FORMATS["llama3"].render(tokenizer, _turns([" Hi!\n", "Yes?", "<|eot_id|>"], "Be brief.")).ids
    head, end, eot = 128006, 128007, 128009
    assert ids[:6] == [128000, head, 9125, end, 271, *tokenizer.encode("Be")]
    assert ids[-4:] == [head, 78191, end, 271]
    assert ids.count(eot) == 4
    assert _shown(tokenizer, ids) == (
        "⟨<|begin_of_text|>⟩"
        "⟨<|start_header_id|>⟩system⟨<|end_header_id|>⟩\n\nBe brief.⟨<|eot_id|>⟩"
        "⟨<|start_header_id|>⟩user⟨<|end_header_id|>⟩\n\nHi!⟨<|eot_id|>⟩"
        "⟨<|start_header_id|>⟩assistant⟨<|end_header_id|>⟩\n\nYes?⟨<|eot_id|>⟩"
        "⟨<|start_header_id|>⟩user⟨<|end_header_id|>⟩\n\n<|eot_id|>⟨<|eot_id|>⟩"
        "⟨<|start_header_id|>⟩assistant⟨<|end_header_id|>⟩\n\n"
    )
    assert FORMATS["llama3"].stop_ids(tokenizer) == (128001, 128009)
    assert FORMATS["llama3.1"].stop_ids(tokenizer) == (128001, 128009, 128008)


def test_tools_answer_as_ipython_from_3_1_on() -> None:
    tokenizer = llama3()
    messages = [Message("user", "2+2?"), Message("assistant", "call"), Message("tool", "4")]
    shown = _shown(tokenizer, FORMATS["llama3.1"].render(tokenizer, messages).ids)
    assert "⟨<|start_header_id|>⟩ipython⟨<|end_header_id|>⟩\n\n4⟨<|eot_id|>⟩" in shown
    with pytest.raises(OptionError, match=r"message 3: role 'tool'; choose assistant, system or user$"):
        FORMATS["llama3"].render(tokenizer, messages)


def test_as_metas_code_encodes() -> None:
    meta = pytest.importorskip("models.llama3.chat_format", exc_type=ImportError)
    from models.datatypes import RawMessage
    from models.llama3.tokenizer import Tokenizer as MetaTokenizer

    theirs = meta.ChatFormat(MetaTokenizer.get_instance())
    messages = _turns(["Hi <|eot_id|>  \n", "\n\n Yes", "日本 123456 I'LL"], "Be brief. ")
    rows = [
        RawMessage(role=message.role, content=message.content.strip(), stop_reason="end_of_turn")
        if message.role == "assistant"
        else RawMessage(role=message.role, content=message.content.strip())
        for message in messages
    ]
    wanted = theirs.encode_dialog_prompt(rows).tokens
    assert FORMATS["llama3"].render(llama3(), messages).ids == wanted
    assert FORMATS["llama3.1"].render(llama3(), messages).ids == wanted


# ChatML, and the model's own template


@cache
def _fast(path: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(smollm2(path).to_json())
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token="<|endoftext|>"
    )


@pytest.mark.model
@pytest.mark.parametrize("system", [None, "Be brief."])
@pytest.mark.parametrize("turns", [["Hi"], ["Hi", "Yes?", " 12 a's\n"], ["a", "b", "c", "d", "e<|"]])
def test_the_default_models_template(smollm2_path: Path, system: str | None, turns: list[str]) -> None:
    tokenizer, template = smollm2(smollm2_path), smollm2_template(smollm2_path)
    messages = _turns(turns, system)
    rows = [{"role": message.role, "content": message.content} for message in messages]
    wanted = _fast(smollm2_path).apply_chat_template(rows, chat_template=template, add_generation_prompt=True)
    own = template_format(tokenizer, template)
    assert own.render(tokenizer, messages).ids == list(wanted["input_ids"])
    assert own.stop_ids(tokenizer) == (2,)
    default = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    spoken = messages if system is not None else [Message("system", default), *messages]
    assert FORMATS["chatml"].render(tokenizer, spoken).ids == list(wanted["input_ids"])


@pytest.mark.model
@settings(max_examples=200, deadline=None)
@given(messages=_CONVERSATIONS)
def test_what_is_typed_stays_text(smollm2_path: Path, messages: list[Message]) -> None:
    """The template's ids are the built-in format's, which places control tokens as ids, whatever is typed."""
    tokenizer = smollm2(smollm2_path)
    if messages[0].role != "system":
        messages = [Message("system", "S"), *messages]
    lost = "\x04\x06\x13\x14\x16\x1d"  # characters that this vocabulary lacks
    if any(letter in lost or 0x40000 <= ord(letter) < 0xC0000 for message in messages for letter in message.content):
        return
    own = template_format(tokenizer, smollm2_template(smollm2_path))
    assert own.render(tokenizer, messages).ids == FORMATS["chatml"].render(tokenizer, messages).ids


@settings(max_examples=150, deadline=None)
@given(messages=_CONVERSATIONS)
def test_llama3_as_its_template(messages: list[Message]) -> None:
    tokenizer, builtin = llama3(), FORMATS["llama3.1"]
    assert builtin.jinja is not None
    own = template_format(tokenizer, builtin.jinja)
    ids = own.render(tokenizer, messages).ids
    assert ids == builtin.render(tokenizer, messages).ids
    assert ids.count(128000) == 1
    assert ids.count(128006) == len(messages) + 1


@pytest.mark.parametrize(
    ("name", "tokenizer"),
    [
        ("llama2", small_llama2),
        ("chatml", lambda: small_bytes("<|im_end|>", "<|im_start|>")),
        ("llama3", llama3),
        ("llama3.1", llama3),
    ],
)
def test_the_templates_written_into_files_are_the_formats(name: str, tokenizer: Any) -> None:
    form, words = FORMATS[name], tokenizer()
    assert form.jinja is not None
    for messages in (_turns(["a"]), _turns([" a b\n", "c", "x"], "s"), _turns(["a", "b", "c", "a", "b"])):
        wanted = form.render(words, messages).ids
        assert template_format(words, form.jinja).render(words, messages).ids == wanted
    with pytest.raises(OptionError, match=r"^chat template: "):
        template_format(words, form.jinja).render(words, [Message("user", "a"), Message("nobody", "b")])


def test_bos_comes_from_the_template_alone() -> None:
    tokenizer = llama3()
    messages = [Message("user", "Hi")]
    assert template_format(tokenizer, "{{ messages[0].content }}").render(tokenizer, messages).ids == tokenizer.encode(
        "Hi"
    )
    once = template_format(tokenizer, "{{ bos_token }}{{ messages[0].content }}")
    assert once.render(tokenizer, messages).ids == tokenizer.encode("Hi", bos=True)
    twice = template_format(tokenizer, "{{ bos_token }}<|begin_of_text|>{{ messages[0].content }}")
    with pytest.raises(OptionError, match="begins with BOS twice"):
        twice.render(tokenizer, messages)


def test_a_token_made_of_message_and_template_stays_text() -> None:
    tokenizer = small_bytes("<|end|>")
    for template, content in [
        ("{{ messages[0].content }}end|>", "<|"),
        ("{{ messages[0].content | trim }}|end|>", "x< \n"),
        ("{{ messages[0].content ~ messages[1].content }}", "<"),
    ]:
        messages = [Message("user", content), Message("assistant", "|end|>")]
        ids = template_format(tokenizer, template).render(tokenizer, messages).ids
        assert 256 not in ids
        assert tokenizer.decode(ids) in ("<|end|>", "x<|end|>")


def test_a_token_that_the_template_makes_by_taking_out_words_is_refused() -> None:
    tokenizer = small_bytes("<|end|>")
    form = template_format(tokenizer, "{{ messages[0].content | replace('#', '') }}<|end|>")
    with pytest.raises(OptionError, match="makes a control token of a part of a message"):
        form.render(tokenizer, [Message("user", "<#|end|>")])
    assert form.render(tokenizer, [Message("user", "<#")]).ids == [ord("<"), 256]


@pytest.mark.parametrize("use", ["[:12]", "|length", "|tojson(ensure_ascii=true)", ".split('</a>')|last"])
def test_a_template_that_looks_into_broken_words_is_refused(use: str) -> None:
    """Broken, they would give it another text than transformers gives; whole, they could become control tokens."""
    tokenizer = small_bytes("</s>")
    form = template_format(tokenizer, "{{ messages[0].content" + use + " }}</s>")
    with pytest.raises(OptionError, match=r"^chat template: looks into words of a message that read like a control"):
        form.render(tokenizer, [Message("user", "<b>bold</a></s>b")])
    ids = form.render(tokenizer, [Message("user", "< nothing / like /s> it")]).ids
    assert ids[-1] == 256
    assert 256 not in ids[:-1]


def test_marks_do_not_run_out_until_all_are_used() -> None:
    tokenizer = small_bytes("<|end|>")
    form = template_format(tokenizer, "{{ messages[0].content }}")
    most = "".join(chr(code) for code in range(0xFDD0, 0xFDEF)) + "<|end|>"
    assert tokenizer.decode(form.render(tokenizer, [Message("user", most)]).ids) == most
    with pytest.raises(OptionError, match="every noncharacter"):
        form.render(tokenizer, [Message("user", most + "\ufdef")])


# Choosing


def test_choosing() -> None:
    tokenizer = llama3()
    assert choose_format(tokenizer, "{{ messages }}", "chatml") is FORMATS["chatml"]
    assert choose_format(tokenizer, "{{ messages }}", None).name == "template"
    assert choose_format(tokenizer, "{{ messages }}", None).jinja == "{{ messages }}"
    with pytest.raises(OptionError, match=r"choose chatml, .* its vocabulary fits: llama3, llama3.1, guard2"):
        choose_format(tokenizer, None, None)
    with pytest.raises(OptionError, match=r"^unknown chat format 'llama-2'; did you mean 'llama2'\? choose chatml, "):
        choose_format(tokenizer, None, "llama-2")
    with pytest.raises(FormatError, match=r"^chat template: line 1: "):
        choose_format(tokenizer, "{% if %}", None)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_needs_its_tokens(name: str) -> None:
    tokenizer = small_bytes("<|im_end|>", "<|im_start|>")
    if name == "chatml":
        assert FORMATS[name].render(tokenizer, [Message("user", "a")]).ids
        return
    missing = FORMATS[name].needs[0]
    with pytest.raises(OptionError) as caught:
        FORMATS[name].render(tokenizer, [Message("user", "a")])
    assert str(caught.value) == (
        f"chat format {name!r} needs the token {missing}, which this model does not have; "
        "formats that fit its vocabulary: chatml"
    )


@pytest.mark.parametrize("name", FORMATS)
def test_no_messages(name: str) -> None:
    with pytest.raises(OptionError, match=r"^messages: there are none"):
        FORMATS[name].render(small_llama2("<step>"), [])


@pytest.mark.parametrize("name", ["llama3", "chatml"])
def test_there_must_be_something_to_answer(name: str) -> None:
    tokenizer = llama3() if name == "llama3" else small_bytes("<|im_end|>", "<|im_start|>")
    with pytest.raises(OptionError, match="the last message is the assistant's"):
        FORMATS[name].render(tokenizer, _turns(["a", "b"]))
    with pytest.raises(OptionError, match="message 1: role 'root'; choose "):
        FORMATS[name].render(tokenizer, [Message("root", "a")])


def test_a_template_compiles_once_and_renders_often() -> None:
    template = Template("{{ messages[0].content }}")
    assert [template.render([{"role": "user", "content": word}]) for word in "ab"] == ["a", "b"]
