"""Tools and calls in chat templates: as transformers renders them, and never as control tokens."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.errors import OptionError
from camelid.tokens.templates.chat_format import FORMATS, Message, template_format
from camelid.tokens.templates.message import ToolCall
from camelid.tokens.templates.tool_calls import ToolParser, gathered
from camelid.tokens.tokenizer import Tokenizer
from tests.tokens.vocabularies import llama3, small_bytes

# As Hermes 2 Pro and Qwen 2.5 write them.
HERMES = """
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
    {{- "You may call one or more functions, described in <tools></tools>:\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\nFor each call, return an object in tags:\\n<tool_call>\\n{\\"name\\": " }}
    {{- "<function-name>, \\"arguments\\": <args-json-object>}\\n</tool_call><|im_end|>\\n" }}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" or (message.role == "system" and not (loop.first and tools)) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}{{- '\\n' + message.content }}{%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

# As Llama 3.1 and 3.2 write them.
LLAMA = """{{- bos_token }}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- system_message + "<|eot_id|>" }}
{%- if tools is not none %}
    {%- set first = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
    {{- '<|start_header_id|>user<|end_header_id|>\\n\\n' -}}
    {{- 'Respond in the format {"name": function name, "parameters": dictionary of argument name and its value}.' }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
    {{- first + "<|eot_id|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim }}
        {{- '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}
"""

# As Llama 3.1's model card calls custom.
CUSTOM = """{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>

{% if loop.first and tools %}{% for tool in tools %}Use the function '{{ tool.function.name }}' to:
{{ tool.function.description }}
{{ tool.function.parameters | tojson }}
{% for name, about in tool.function.parameters.properties.items() %}{{ name }}: {{ about.type }}
{% endfor %}{% endfor %}Answer as <function=name>{"parameter": "value"}</function>
{% endif %}{% for call in message.tool_calls %}<function={{ call.function.name }}>\
{{ call.function.arguments | tojson }}</function>{% endfor %}\
{{ message.content }}{% if message.tool_call_id %} ({{ message.tool_call_id }}){% endif %}\
<|eot_id|>{% endfor %}<|start_header_id|>assistant<|end_header_id|>

"""

HEADERS = ("<|eot_id|>", "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|python_tag|>")
CASES = {
    "hermes": (HERMES, ("<|im_end|>", "<|im_start|>")),
    "hermes, calls as control tokens": (HERMES, ("<|im_end|>", "<|im_start|>", "<tool_call>", "</tool_call>")),
    "json": (LLAMA, HEADERS),
    "function": (CUSTOM, HEADERS),
}

WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a place; Zürich's too.",
        "parameters": {
            "type": "object",
            "properties": {"place": {"type": "string"}, "days": {"type": "integer", "minimum": 1, "default": 1}},
            "required": ["place"],
        },
    },
}
NOW: dict[str, Any] = {
    "type": "function",
    "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}},
}


def conversation(arguments: str, result: str, question: str = "How is Zürich?") -> list[Message]:
    call = ToolCall("call_1", "get_weather", arguments)
    return [
        Message("system", "Be brief."),
        Message("user", question),
        Message("assistant", "", (call,)),
        Message("tool", result, (), "call_1", "get_weather"),
    ]


@cache
def fast(control: tuple[str, ...]) -> Any:
    transformers = pytest.importorskip("transformers")
    import tokenizers

    backend = tokenizers.Tokenizer.from_str(small_bytes(*control).to_json())
    bos = {"bos_token": "<|begin_of_text|>"} if "<|begin_of_text|>" in control else {}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=control[0], **bos)


def theirs(control: tuple[str, ...], template: str, messages: list[Message], tools: list[dict[str, Any]]) -> list[int]:
    rows = []
    for message in messages:
        row: dict[str, Any] = {"role": message.role, "content": message.content}
        if message.tool_calls:
            row["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {"name": call.name, "arguments": json.loads(call.arguments)},
                }
                for call in message.tool_calls
            ]
        if message.role == "tool":
            row |= {"tool_call_id": message.tool_call_id, "name": message.name}
        rows.append(row)
    made = fast(control).apply_chat_template(
        rows, tools=tools or None, chat_template=template, add_generation_prompt=True
    )
    return list(made["input_ids"])


def ours(control: tuple[str, ...], template: str, messages: list[Message], tools: list[dict[str, Any]]) -> list[int]:
    tokenizer = with_bos(control)
    return template_format(tokenizer, template).render(tokenizer, messages, tools=tools).ids


@cache
def with_bos(control: tuple[str, ...]) -> Tokenizer:
    """The same vocabulary as transformers' object holds."""
    tokenizer = small_bytes(*control)
    if "<|begin_of_text|>" in control:
        tokenizer.bos_id = tokenizer.special_ids["<|begin_of_text|>"]
    return tokenizer


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("tools", [[WEATHER], [WEATHER, NOW]], ids=["one", "two"])
@pytest.mark.parametrize("until", [2, 4])
def test_as_transformers_renders_them(case, tools, until):
    template, control = CASES[case]
    messages = conversation('{"place": "Zürich", "days": 2, "more": [null, 1.5, {"a": true}]}', '5 °C, "rain"')[:until]
    assert ours(control, template, messages, tools) == theirs(control, template, messages, tools)


def test_several_calls_and_results_and_words_beside_them():
    template, control = CASES["hermes"]
    calls = (ToolCall("a", "now", "{}"), ToolCall("b", "get_weather", '{"place": "Oslo"}'))
    messages = [
        Message("user", "Well?"),
        Message("assistant", "I look.", calls),
        Message("tool", "12:00", (), "a", "now"),
        Message("tool", "rain", (), "b", "get_weather"),
        Message("assistant", "Rain at noon."),
        Message("user", "Thanks."),
    ]
    assert ours(control, template, messages, [WEATHER, NOW]) == theirs(control, template, messages, [WEATHER, NOW])
    assert ours(control, template, messages, []) == theirs(control, template, messages, [])


def test_arguments_that_are_no_object_stay_text():
    template, control = CASES["hermes"]
    for arguments in ('{"place": ', "[1]", "", "[" * 5000):
        text = small_bytes(*control).decode(ours(control, template, conversation(arguments, "?"), [WEATHER]))
        assert f'"arguments": {json.dumps(arguments)}}}' in text


_EVIL = st.lists(
    st.sampled_from([*HEADERS, "<|im_end|>", "<tool_call>", "</tool_call>", "<|", "|>", "<", ">", "a", "\ufdd0", " "]),
    max_size=4,
).map("".join)


@settings(max_examples=150, deadline=None)
@given(case=st.sampled_from(sorted(CASES)), evil=st.lists(_EVIL, min_size=6, max_size=6))
def test_nothing_in_tools_calls_and_results_becomes_a_control_token(case, evil):
    """The same control tokens as with harmless words, and every word where it was, as text."""
    template, control = CASES[case]

    def asked(words: list[str]) -> tuple[list[Message], list[dict[str, Any]]]:
        function = {
            "name": "f",
            "description": words[0],
            "parameters": {
                "type": "object",
                "properties": {words[1]: {"type": "string", "enum": ["x", words[2]]}},
                "required": [words[1]],
            },
        }
        arguments = json.dumps({words[1]: {"deep": [words[3]]}})
        messages = conversation(arguments, words[4])
        return [*messages[:3], Message("tool", words[4], (), words[5], "f")], [
            {"type": "function", "function": function}
        ]

    tokenizer = with_bos(control)
    form = template_format(tokenizer, template)
    (talk, tools), (harmless_talk, harmless_tools) = asked(evil), asked(["w"] * 6)
    ids = form.render(tokenizer, talk, tools=tools).ids
    harmless = form.render(tokenizer, harmless_talk, tools=harmless_tools).ids
    specials = set(tokenizer.special_ids.values())
    assert [id for id in ids if id in specials] == [id for id in harmless if id in specials]
    text = tokenizer.decode(ids)
    for word in evil[:5]:
        assert word in text or json.dumps(word, ensure_ascii=False)[1:-1] in text or word.strip() in text


@pytest.mark.parametrize(
    ("template", "messages", "tools", "words"),
    [
        (
            "{{ messages }}",
            conversation("{}", "")[:2],
            [WEATHER],
            "this model's chat template has no place for tools; ",
        ),
        (
            "{{ messages }}",
            conversation("{}", ""),
            [],
            "^tool_calls: this model's chat template has no place for calls",
        ),
        ("{{ tools }}", conversation("{}", "")[:2], [WEATHER], "has calls written in a way that is not read here"),
        (HERMES, conversation("{}", "")[:2], [{"type": "browser"}], "^tools: number 1 is not a function"),
    ],
)
def test_templates_without_a_place_for_tools_say_so(template, messages, tools, words):
    tokenizer = small_bytes("<|im_end|>", "<|im_start|>")
    with pytest.raises(OptionError, match=words):
        template_format(tokenizer, template).render(tokenizer, messages, tools=tools)


def test_tools_that_are_nested_too_deep_are_refused():
    schema: dict[str, Any] = {}
    for _ in range(3000):
        schema = {"not": schema}
    tools = [{"type": "function", "function": {"name": "f", "parameters": schema}}]
    tokenizer = small_bytes("<|im_end|>", "<|im_start|>")
    with pytest.raises(OptionError, match="nested too deep"):
        template_format(tokenizer, HERMES).render(tokenizer, [Message("user", "a")], tools=tools)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "llama3.1"])
def test_built_in_formats_have_no_place_for_tools(name):
    control = [*("<|im_end|>", "<|im_start|>"), *HEADERS[:4], "<|end_of_text|>", "<s>", "</s>", "<step>", "<|eom_id|>"]
    tokenizer = small_bytes(*control)
    with pytest.raises(OptionError, match=f"^tools: chat format '{name}' has no place for tools"):
        FORMATS[name].render(tokenizer, [Message("user", "a")], tools=[WEATHER])
    assert FORMATS[name].tool_style is None


def test_llama_3_1_by_hand():
    tokenizer, form = llama3(), FORMATS["llama3.1"]
    calls = (ToolCall("1", "now", "{}"), ToolCall("2", "get_weather", '{"place": "<|eot_id|>"}'))
    messages = [
        Message("system", "Be brief."),
        Message("user", " Well? "),
        Message("assistant", "", calls),
        Message("tool", "rain"),
        Message("assistant", "One more.", calls[:1]),
        Message("user", "Go."),
    ]
    names = {id: text for text, id in tokenizer.special_ids.items()}
    ids = form.render(tokenizer, messages, tools=[WEATHER, NOW]).ids
    shown = b"".join(f"⟨{names[id]}⟩".encode() if id in names else tokenizer.token_bytes(id) for id in ids).decode()

    def turn(role: str, text: str) -> str:
        return f"⟨<|start_header_id|>⟩{role}⟨<|end_header_id|>⟩\n\n{text}⟨<|eot_id|>⟩"

    first = (
        "Given the following functions, please respond with a JSON for a function call with its proper arguments that "
        'best answers the given prompt.\n\nRespond in the format {"name": function name, "parameters": dictionary of '
        "argument name and its value}. Do not use variables.\n\n"
        + "".join(json.dumps(tool, indent=4, ensure_ascii=False) + "\n\n" for tool in (WEATHER, NOW))
        + "Well?"
    )
    two = '{"name": "now", "parameters": {}}; {"name": "get_weather", "parameters": {"place": "<|eot_id|>"}}'
    assert shown == (
        "⟨<|begin_of_text|>⟩"
        + turn("system", "Be brief.")
        + turn("user", first)
        + turn("assistant", two)
        + turn("ipython", "rain")
        + turn("assistant", 'One more.⟨<|python_tag|>⟩{"name": "now", "parameters": {}}')
        + turn("user", "Go.")
        + "⟨<|start_header_id|>⟩assistant⟨<|end_header_id|>⟩\n\n"
    )
    assert form.tool_style is not None
    parser = ToolParser(form.tool_style, ["now", "get_weather"])
    _, found = gathered([*parser.push(two), *parser.finish()])
    assert [(call.name, call.arguments) for call in found] == [(call.name, call.arguments) for call in calls]
    with pytest.raises(OptionError, match="tools need a message of the user"):
        form.render(tokenizer, messages[:1], tools=[NOW])
