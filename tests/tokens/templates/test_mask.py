"""The mask of a conversation: what an assistant wrote and the token that ends its turn, as transformers marks it."""

from __future__ import annotations

import re
from functools import cache
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from camelid.errors import OptionError
from camelid.tokens.templates.chat_format import FORMATS, Rendered, template_format
from camelid.tokens.templates.jinja_template import Template
from camelid.tokens.templates.message import Image, Message, Text, ToolCall
from camelid.tokens.tokenizer import Tokenizer
from tests.tokens.templates.test_tool_templates import HERMES, LLAMA, WEATHER, fast, with_bos
from tests.tokens.vocabularies import llama3, small_bytes, small_llama2, smollm2, smollm2_template

CHATML = ("<|im_end|>", "<|im_start|>")
HEADERS = ("<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>")
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

# Templates with the tag as people write them for training; without it the mask must be the same.
TAGGED = {
    "chatml": (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}"
        "{% generation %}{{ m.content + '<|im_end|>' }}{% endgeneration %}"
        "{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}" + PROMPT,
        CHATML,
    ),
    "trimmed": (
        (
            "{{ bos_token }}{% for m in messages %}"
            "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' }}{% if m.role == 'assistant' %}"
            "{% generation %}{{ m.content | trim + '<|eot_id|>' }}{% endgeneration %}"
            "{% else %}{{ m.content | trim + '<|eot_id|>' }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
        ),
        HEADERS,
    ),
    "no opening of an answer": (  # as Llama 2's and Mistral's
        (
            "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}"
            "{% generation %}{{ ' ' + m.content | trim + '<|eot_id|>' }}{% endgeneration %}"
            "{% else %}{{ '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}"
        ),
        HEADERS,
    ),
    "tools with the last question": (  # as Mistral's: the history is not how the prompts were
        (
            "{% set ns = namespace(last=-1) %}{% for m in messages if m.role != 'assistant' %}"
            "{% set ns.last = loop.index0 %}{% endfor %}{% set ns.at = -1 %}{% for m in messages %}"
            "{% if m.role == 'assistant' %}{% generation %}{{ ' ' + m.content + '<|eot_id|>' }}{% endgeneration %}"
            "{% else %}{% set ns.at = ns.at + 1 %}{{ '[TOOLS] [] ' if ns.at == ns.last }}"
            "{{ '[INST] ' + m.content + ' [/INST]' }}{% endif %}{% endfor %}"
        ),
        HEADERS,
    ),
    "thoughts left out": (  # as Qwen 3's: only the last turn keeps its thoughts
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.role == 'assistant' %}{% generation %}"
        "{% if loop.last %}{{ '<think>\n' + (m.content.split('</think>')[0] if '</think>' in m.content else '') }}"
        "{{ '\n</think>\n\n' }}{% endif %}{{ m.content.split('</think>')[-1] + '<|im_end|>' }}"
        "{% endgeneration %}{% else %}{{ m.content + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}" + PROMPT,
        CHATML,
    ),
    "a thought is opened": (  # as DeepSeek R1's: the prompt goes further than what a finished turn begins with
        (
            "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>' }}"
            "{% generation %}{{ m.content.split('</think>')[-1] + '<|im_end|>' }}{% endgeneration %}"
            "{% else %}{{ 'Q:' + m.content }}{% endif %}{% endfor %}"
            "{% if add_generation_prompt %}{{ '<|im_start|><think>\n' }}{% endif %}"
        ),
        CHATML,
    ),
}


def _untagged(template: str) -> str:
    return re.sub(r"\{% (end)?generation %\}", "", template)


def _rows(messages: list[Message]) -> list[dict[str, Any]]:
    return [{"role": message.role, "content": message.content} for message in messages]


def _theirs(control: tuple[str, ...], template: str, messages: list[Message]) -> tuple[list[int], list[bool]]:
    made = fast(control).apply_chat_template(
        _rows(messages), chat_template=template, return_dict=True, return_assistant_tokens_mask=True
    )
    return list(made["input_ids"]), [bool(flag) for flag in made["assistant_masks"]]


def _runs(tokenizer: Tokenizer, made: Rendered) -> list[str]:
    """What is marked, each run as text."""
    pairs = groupby(zip(made.ids, made.mask, strict=True), key=lambda pair: pair[1])
    return [tokenizer.decode([id for id, _ in run], special=True) for marked, run in pairs if marked]


# no control token written out, which transformers would take for one
_WORDS = st.lists(
    st.sampled_from(["a", "Hi", " ", "\n", "é", "日", "<|", "|>", "im_end", "<", "</think>", "[INST]", "assistant\n"]),
    max_size=6,
).map("".join)


@st.composite
def _talks(draw: st.DrawFn) -> list[Message]:
    roles = draw(st.sampled_from(["ua", "sua", "uaua", "suauaua", "u", "uau", "uaa"]))
    names = {"u": "user", "a": "assistant", "s": "system"}
    words = [draw(_WORDS) for _ in roles]
    return [
        Message(names[role], content if role == "a" else content.replace("</think>", "") or "?")
        for role, content in zip(roles, words, strict=True)
    ]


@pytest.mark.parametrize("name", TAGGED)
@settings(max_examples=30, deadline=None)
@given(messages=_talks())
def test_as_transformers_marks_them(name: str, messages: list[Message]) -> None:
    """With the tag, and by the prompts that lead to each turn without it."""
    template, control = TAGGED[name]
    tokenizer = with_bos(control)
    assume(not any(token in message.text for message in messages for token in control))  # theirs takes it for the token
    wanted = _theirs(control, template, messages)
    tagged = template_format(tokenizer, template).render(tokenizer, messages, add_generation_prompt=False)
    assert (tagged.ids, tagged.mask) == wanted
    form = template_format(tokenizer, _untagged(template))
    plain = form.render(tokenizer, messages, add_generation_prompt=False)
    assert plain.ids == wanted[0]
    if name == "thoughts left out" and messages[-1].role == "assistant" and len(messages) > 2:
        return  # see below
    assert plain.mask == wanted[1]


def test_turns_are_found_where_the_history_is_written_anew() -> None:
    template, control = TAGGED["thoughts left out"]
    tokenizer, talk = with_bos(control), [Message("user", "a"), Message("assistant", "Hm</think>b")] * 2
    form = template_format(tokenizer, _untagged(template))
    made = form.render(tokenizer, talk, add_generation_prompt=False)
    assert (made.ids, made.mask) == _theirs(control, template, talk)
    assert _runs(tokenizer, made) == ["b<|im_end|>", "<think>\nHm\n</think>\n\nb<|im_end|>"]
    opened = form.render(tokenizer, talk[:-1])
    assert _runs(tokenizer, opened) == ["b<|im_end|>"]


@pytest.mark.parametrize("template", [HERMES, LLAMA], ids=["hermes", "llama"])
def test_calls_of_tools_are_the_assistants(template: str) -> None:
    control = CHATML if template == HERMES else HEADERS
    tokenizer, call = with_bos(control), ToolCall("1", "get_weather", '{"place": "<|im_end|>"}')
    messages = [
        Message("user", "Well? <|eot_id|>"),
        Message("assistant", "", (call,)),
        Message("tool", "rain", (), "1", "get_weather"),
        Message("assistant", " Rain. <|im_end|> "),
        Message("user", "?"),
        Message("assistant", "No."),
    ]
    form = template_format(tokenizer, template)
    made = form.render(tokenizer, messages, tools=[WEATHER], add_generation_prompt=False)
    written = '{"place": "<|im_end|>"}'
    first = f'<tool_call>\n{{"name": "get_weather", "arguments": {written}}}\n</tool_call>'
    if template == HERMES:  # its header ends before the line end that words and calls begin with
        assert _runs(tokenizer, made) == [f"{first}<|im_end|>", " Rain. <|im_end|> <|im_end|>", "No.<|im_end|>"]
    else:
        called = f'{{"name": "get_weather", "parameters": {written}}}<|eot_id|>'
        assert _runs(tokenizer, made) == [called, "Rain. <|im_end|><|eot_id|>", "No.<|eot_id|>"]
    ends = [id for id, marked in zip(made.ids, made.mask, strict=True) if marked and id == 256]
    assert len(ends) == 3  # those that were typed are text


# Built-in formats


def _family() -> dict[str, Tokenizer]:
    llama2 = small_llama2("<step>")
    return {
        **dict.fromkeys(("llama2", "codellama", "codellama70b"), llama2),
        **dict.fromkeys(("llama3", "llama3.1"), llama3()),
        "chatml": small_bytes(*CHATML),
    }


ENDS = {"codellama70b": "<step>", "chatml": "<|im_end|>"} | dict.fromkeys(("llama2", "codellama"), "</s>")


@pytest.mark.parametrize("name", ["llama2", "codellama", "codellama70b", "llama3", "llama3.1", "chatml"])
@settings(max_examples=20, deadline=None)
@given(contents=st.lists(st.text("abc xys\n<☺", max_size=8).map(lambda text: f"{text}a"), min_size=2, max_size=6))
def test_formats_of_the_family(name: str, contents: list[str]) -> None:
    """What is marked is what the assistant said and its end; what is before is the prompt that it answered."""
    tokenizer = _family()[name]
    contents = contents[: len(contents) // 2 * 2]
    messages = [Message(("user", "assistant")[at % 2], content) for at, content in enumerate(contents)]
    made = FORMATS[name].render(tokenizer, messages, add_generation_prompt=False)
    end = ENDS.get(name, "<|eot_id|>")
    said = contents[1::2] if name == "chatml" else [content.strip() for content in contents[1::2]]
    runs = _runs(tokenizer, made)
    if name in ("llama2", "codellama"):  # the vocabulary has a piece for "] ", which is marked for its space
        runs = [run.removeprefix("]") for run in runs]
    assert [run.removesuffix(end).strip() if name != "chatml" else run.removesuffix(end) for run in runs] == said
    assert all(run.endswith(end) for run in runs)
    asked = FORMATS[name].render(tokenizer, messages[:-1])
    assert asked.mask[-1:] == [False]
    if name in ("llama3", "llama3.1", "chatml"):
        last = len(made.mask) - made.mask[::-1].index(True) - 1
        begin = last - made.mask[last::-1].index(False) + 1
        assert made.ids[:begin] == asked.ids
    jinja = FORMATS[name].jinja
    if jinja is not None:
        theirs = template_format(tokenizer, jinja).render(tokenizer, messages, add_generation_prompt=False)
        if name in ("llama3", "llama3.1", "chatml"):
            assert (theirs.ids, theirs.mask) == (made.ids, made.mask)
        assert [run.removeprefix("]") for run in _runs(tokenizer, theirs)] == runs


def test_llama2_by_hand() -> None:
    tokenizer = small_llama2()
    messages = [Message("system", "s"), *[Message("user", "a"), Message("assistant", "b c")] * 2]
    made = FORMATS["llama2"].render(tokenizer, messages, add_generation_prompt=False)
    assert _runs(tokenizer, made) == ["] b c </s>", "] b c </s>"]  # this vocabulary has a piece for "] "
    whole = FORMATS["llama2"].render(tokenizer, [*messages, Message("user", "a")])
    assert whole.ids[: len(made.ids)] == made.ids
    assert whole.mask == made.mask + [False] * (len(whole.ids) - len(made.ids))


@pytest.mark.parametrize("name", ["guard1", "guard2", "guard3", "guard3-1b"])
def test_guards_are_asked_all_of_it(name: str) -> None:
    tokenizer = small_llama2() if name == "guard1" else llama3()
    talk = [Message("user", "a"), Message("assistant", "b")]
    asked, made = (
        FORMATS[name].render(tokenizer, talk),
        FORMATS[name].render(tokenizer, talk, add_generation_prompt=False),
    )
    assert asked.ids[: len(made.ids)] == made.ids
    assert not any(asked.mask + made.mask)


@pytest.mark.slow
@pytest.mark.model
@settings(max_examples=30, deadline=None)
@given(messages=_talks())
def test_the_default_models_own_template(smollm2_path: Path, messages: list[Message]) -> None:
    """Merges included: its tokens may reach over the edges of an answer."""
    tokenizer, template = smollm2(smollm2_path), smollm2_template(smollm2_path)
    messages = messages if messages[0].role == "system" else [Message("system", "S"), *messages]
    own = template_format(tokenizer, template).render(tokenizer, messages, add_generation_prompt=False)
    tagged = TAGGED["chatml"][0]
    made = _smollm2_fast(smollm2_path).apply_chat_template(
        _rows(messages), chat_template=tagged, return_dict=True, return_assistant_tokens_mask=True
    )
    assert (own.ids, own.mask) == (list(made["input_ids"]), [bool(flag) for flag in made["assistant_masks"]])
    if messages[-1].role != "assistant" and all(m.role != n.role for m, n in pairwise(messages)):
        built_in = FORMATS["chatml"].render(tokenizer, messages)
        assert built_in.mask[: len(own.mask)] == own.mask
        assert built_in.ids[: len(own.ids)] == own.ids


@cache
def _smollm2_fast(path: Path) -> Any:
    transformers = pytest.importorskip("transformers")
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(smollm2(path).to_json())
    if backend.post_processor is not None:  # it would take spaces from the offsets
        backend.post_processor = tokenizers.processors.ByteLevel(trim_offsets=False)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")


# What is not finished, and what cannot be told


@pytest.mark.parametrize("name", ["chatml", "thoughts left out"])
def test_a_turn_that_is_continued_has_no_end(name: str) -> None:
    template, control = TAGGED[name]
    tokenizer = with_bos(control)
    messages = [Message("user", "a"), Message("assistant", "b"), Message("user", "c"), Message("assistant", "Well, d")]
    for source in (_untagged(TAGGED["chatml"][0]), TAGGED["chatml"][0]):
        made = template_format(tokenizer, source).render(tokenizer, messages, continue_final_message=True)
        assert _runs(tokenizer, made) == ["b<|im_end|>", "Well, d"]
    assert template  # both vocabularies


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (
            "{% for m in messages %}{{ m.content + '\n' }}{% endfor %}",
            "number 2 .* no control token that ends its turn",
        ),
        (
            "{% for m in messages %}{{ m.content }}{{ '<|im_end|>' if m.role == 'user' }}{% endfor %}",
            "number 2 .* no control token that ends its turn",
        ),
        (
            (
                "{% for m in messages %}{{ messages | length ~ m.content + '<|im_end|>' }}{% endfor %}"
                "{% if add_generation_prompt %}A{% endif %}"
            ),
            r"number 2 .* in another way than in the prompt for it; an exact mask needs a template with \{% generation",
        ),
        ("{{ messages[1].content }}<|im_end|>", "no prompt for number 2, the assistant's: chat template: "),
        (
            (
                "{% generation %}{{ messages[1].content }}{% endgeneration %}{% macro f() %}{% generation %}x"
                "{% endgeneration %}{% endmacro %}{{ f() | length }}"
            ),
            "looks into what its tag",
        ),
    ],
)
def test_what_a_template_does_not_show_is_refused(template: str, words: str) -> None:
    tokenizer = small_bytes(*CHATML)
    messages = [Message("user", "a"), Message("assistant", "b"), Message("user", "a"), Message("assistant", "c")]
    made = template_format(tokenizer, template).render(tokenizer, messages, add_generation_prompt=False)
    assert made.ids
    with pytest.raises(OptionError, match=words) as caught:
        made.mask  # noqa: B018
    assert "\n" not in str(caught.value)


def test_the_tag_is_a_scope_of_its_own() -> None:
    """As in transformers, with or without a mask."""
    template = "{% generation %}{% set x = 1 %}a{{ x }}{% endgeneration %}{{ x }}"
    assert Template(template).render([]) == "a1"
    assert Template(template).has_generation
    assert not Template("{# {% generation %} #}{{ 'generation' }}").has_generation


# Parts

PARTS = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if m.content is string %}{{ m.content }}"
    "{% else %}{% for part in m.content %}{% if part.type == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% endif %}{{ '<|im_end|>\n' }}{% endfor %}" + PROMPT
)


def test_templates_that_read_parts_get_them() -> None:
    tokenizer = small_bytes(*CHATML)
    messages = [Message("user", [Text("a <|im_end|>"), Text("b")]), Message("assistant", [Text(" c"), Text("d ")])]
    form = template_format(tokenizer, PARTS)
    made = form.render(tokenizer, messages, add_generation_prompt=False)
    shown = "<|im_start|>user\na <|im_end|>b<|im_end|>\n<|im_start|>assistant\n cd <|im_end|>\n"
    assert tokenizer.decode(made.ids, special=True) == shown
    assert [id for id in made.ids if id >= 256] == [257, 256, 257, 256]
    assert _runs(tokenizer, made) == [" cd <|im_end|>"]
    rows = [
        {"role": message.role, "content": [{"type": "text", "text": part.text} for part in message.content]}
        for message in [Message("user", [Text("a"), Text("b")]), messages[1]]
    ]
    theirs = fast(CHATML).apply_chat_template(rows, chat_template=PARTS)["input_ids"]
    clean = [Message("user", [Text("a"), Text("b")]), messages[1]]
    assert form.render(tokenizer, clean, add_generation_prompt=False).ids == list(theirs)
    cut = form.render(tokenizer, clean, continue_final_message=True)
    assert tokenizer.decode(cut.ids, special=True).endswith("assistant\n cd ")


@pytest.mark.parametrize("name", ["template", "chatml", "tojson"])
def test_elsewhere_parts_are_lines(name: str) -> None:
    tokenizer = small_bytes(*CHATML)
    template = {"template": _untagged(TAGGED["chatml"][0]), "tojson": "{{ messages[0].content | tojson }}"}.get(name)
    form = FORMATS["chatml"] if template is None else template_format(tokenizer, template)
    parts, text = [Message("user", [Text("a"), Text("b")])], [Message("user", "a\nb")]
    assert form.render(tokenizer, parts).ids == form.render(tokenizer, text).ids


@pytest.mark.parametrize("name", ["chatml", "template"])
def test_no_model_sees(name: str) -> None:
    tokenizer = small_bytes(*CHATML)
    form = FORMATS["chatml"] if name == "chatml" else template_format(tokenizer, PARTS)
    with pytest.raises(OptionError, match=r"^messages: number 2 holds an image, which no model here can see; leave it"):
        form.render(tokenizer, [Message("user", "a"), Message("user", [Text("b"), Image(b"\x89PNG")])])
