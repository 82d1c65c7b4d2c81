"""Templates of other people: what transformers gives, and what a hostile one cannot do."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from camelid.errors import CamelidError, FormatError, OptionError
from camelid.tokens.templates import jinja_process
from camelid.tokens.templates.jinja_template import Template

_MESSAGES = [{"role": "user", "content": " Hi \n"}, {"role": "assistant", "content": "Yes?"}]

# What templates in the wild do, small.
_ORDINARY = [
    "{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}\n{% endfor %}",
    "{%- for m in messages -%}\n  {%- if loop.first %}{{ bos_token }}{% endif -%}\n  {{ m.content }}\n{%- endfor -%}",
    "  {% if messages[0].role == 'system' %}\nA\n  {% else %}\nB\n  {% endif %}\nC\n",
    "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "{% for m in messages %}{% if m.role == 'assistant' %}{% continue %}{% endif %}{{ m.content }}{% endfor %}",
    "{% for m in messages %}{% if loop.index0 == 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "{% macro show(m) %}[{{ m.role|upper }}]{{ caller() if caller }}{% endmacro %}{{ show(messages[0]) }}",
    "{{ messages | tojson }}{{ messages[0] | tojson(indent=2) }}{{ {'é': '<&>'} | tojson }}",
    "{{ messages[0].content.strip().split('i')[0] ~ 'x' ~ 3 }}{{ 'a' * 3 }}{{ '%s-%d' % ('b', 4) }}{{ 7 % 4 }}",
    "{{ (messages | length) * 2 }}{{ messages[1:] | map(attribute='role') | join(', ') }}{{ messages | last }}",
    "{% if tools %}T{% endif %}{% if tools is not none %}N{% endif %}{% if documents %}D{% endif %}{{ nothing }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}{{ [1, 2] + [3] }}{{ (1, 'a') }}",
    "{% generation %}{{ messages[0].content }}{% endgeneration %}{{ add_generation_prompt }}",
    "{{ messages[0].content | replace('H', 'J') | default('x') }}{{ '{}-{:>3}'.format('a', 1) }}{{ range(3) | list }}",
    "{% set x = {'a': [1, {'b': 2}]} %}{{ x.a[1].b }}{{ x.items() | list }}{{ x.get('z', 'none') }}",
]


@pytest.mark.parametrize("source", _ORDINARY)
def test_as_transformers_renders(source: str) -> None:
    pytest.importorskip("transformers")
    from transformers.utils.chat_template_utils import render_jinja_template

    theirs, _ = render_jinja_template([_MESSAGES], chat_template=source, add_generation_prompt=True, bos_token="<s>")
    assert Template(source).render(_MESSAGES, bos_token="<s>") == theirs[0]


def test_strftime_now_and_raise_exception() -> None:
    assert Template("{{ strftime_now('%Y') }}").render([]) == time.strftime("%Y")
    with pytest.raises(OptionError, match=r"^chat template: roles must alternate$"):
        Template("{{ raise_exception('roles\nmust alternate') }}").render([])


_NAMESPACE = "{% set ns = namespace(x=START) %}{% for i in range(1000) %}{% set ns.x = NEXT %}{% endfor %}{{ ns.x }}"
_DOUBLE = "{% set x = [1, 2] %}{% set y = [1, 2] %}" + "{% set x = MAKEX %}{% set y = MAKEY %}" * 60


def _growing(start: str, following: str) -> str:
    return _NAMESPACE.replace("START", start).replace("NEXT", following)


def _nested(make: str, use: str) -> str:
    return _DOUBLE.replace("MAKEX", make).replace("MAKEY", make.replace("x", "y")) + use


_HUGE = {
    "product": "{{ 'a' * 10**10 }}",
    "product of products": "{{ ('a' * 9000000) * 9000000 }}",
    "list": "{{ [1] * 10**9 }}",
    "power": "{{ 10**(10**10) }}",
    "squares": _growing("9**99", "ns.x * ns.x"),
    "joined": _growing("'abcdefgh'", "ns.x ~ ns.x"),
    "added": _growing("'abcdefgh'", "ns.x + ns.x"),
    "lists added": _growing("[1]", "ns.x + ns.x"),
    "many": _growing("[]", "ns.x + ['a'.ljust(90000 + i)]"),
    "filter": "{{ 'a' | center(10**9) }}",
    "method": "{{ 'a'.ljust(10**9) }}",
    "width": "{{ '%999999999d' % 1 }}",
    "width from outside": "{{ '%*d' % (999999999, 1) }}",
    "widths": "{{ ('%9999d' * 1000000) % ((1,) * 1000000) }}",
    "format": "{{ '{:999999999}'.format(1) }}",
    "format from outside": "{{ '{:{w}}'.format(1, w=10**9) }}",
    "places": "{{ ('{0}' * 100000).format('a' * 100000) }}",
    "format filter": "{{ '%999999999d' | format(1) }}",
    "replace": "{{ ('a' * 9000000).replace('a', 'b' * 9000) }}",
    "replace nothing": "{{ ('a' * 900000) | replace('', 'b' * 9000) }}",
    "join": "{{ (['a' * 900000] * 90000) | join }}",
    "join by": "{{ range(100000) | join('a' * 900000) }}",
    "join method": "{{ ('a' * 900000).join('a' * 90000) }}",
    "indent": "{{ ('\n' * 1000000) | indent(1000000, true) }}",
    "json": "{{ ([1] * 1000) | tojson(indent=900000) }}",
    "json, parted": "{{ ([1] * 9000) | tojson(separators=('x' * 90000, 'x')) }}",
    "batch": "{{ [1] | batch(10**9, 'x') | list }}",
    "slice": "{{ [1] | slice(10**9) | list }}",
    "output": "{% for i in range(100000) %}{{ 'a' * 100000 }}{% endfor %}",
    "nested, printed": _nested("[x, x]", "{{ x }}"),
    "nested, compared": _nested("[x, x]", "{{ x == y }}"),
    "nested, added": _nested("[x] + [x]", "{{ x }}"),
    "nested, repeated": _nested("[x] * 2", "{{ x | tojson }}"),
    "nested, hashed": _nested("(x, x)", "{{ {x: 1} }}"),
    "nested, dictionaries": _nested("dict(a=x, b=x)", "{{ x == y }}"),
    "nested, as text": _nested("[x, x]", "{{ x ~ '' }}"),
    "recursion": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "recursive loop": "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
    "deep": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
}


@pytest.mark.slow
@pytest.mark.parametrize("source", _HUGE.values(), ids=_HUGE.keys())
def test_too_much_is_refused_at_once(source: str) -> None:
    with pytest.raises(FormatError, match=r"^chat template: .*; name a chat format instead$") as caught:
        Template(source).render(_MESSAGES)
    assert "runs longer" not in str(caught.value)


_ENDLESS = {
    "empty loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "skipping loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% continue %}{% endfor %}{% endfor %}",
    "a tree of macros": "{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(40) }}",
    "in a filter": "{% for i in range(99999) %}{{ range(99999) | map('string') | list | length }}{% endfor %}",
    "in a test": "{% for i in range(99999) %}{{ range(99999) | select('odd') | list | length }}{% endfor %}",
    "in a condition": "{% for i in range(99999) if range(99999) | select('odd') | list | length < 0 %}{% endfor %}",
}


# One operation that takes long: no clock of Python's sees it, and none can stop it. Each took minutes to years.
_A, _B = "'a' * 400000", "('a' * 100000 ~ 'b' ~ 'a' * 100000)"
_SLOW = {
    "rfind": f"{{{{ ({_A}).rfind({_B}) }}}}",
    "rindex": f"{{{{ ({_A}).rindex({_B}) }}}}",
    "rsplit": f"{{{{ ({_A}).rsplit({_B}) }}}}",
    "rpartition": f"{{{{ ({_A}).rpartition({_B}) }}}}",
    "strip": "{% set s = ('é' * 4000000) %}{{ s.strip(('x' * 400000) ~ 'é') }}",
    "trim": "{% set s = ('ab' * 2000000) %}{{ s | trim(('c' * 3000000) ~ 'ab') | length }}",
    "in a macro": f"{{% macro f() %}}{{{{ ({_A}).rfind({_B}) }}}}{{% endmacro %}}{{{{ f() ~ f() }}}}",
    "at compile time": "{{ ('a' * 400000).rfind('a' * 100000 ~ 'b' ~ 'a' * 100000) }}",
}


@pytest.mark.slow
@pytest.mark.parametrize("where", ["main thread", "another thread"])
@pytest.mark.parametrize("source", [*_ENDLESS.values(), *_SLOW.values()], ids=[*_ENDLESS, *_SLOW])
def test_endless_templates_are_stopped(source: str, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jinja_process, "SECONDS", 0.1)
    caught: list[Exception] = []

    def run() -> None:
        try:
            Template(source).render(_MESSAGES)
        except CamelidError as error:
            caught.append(error)

    if where == "main thread":
        run()
    else:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    assert isinstance(caught[0], FormatError)
    assert "runs longer than 0.1 seconds" in str(caught[0])
    monkeypatch.undo()
    assert Template("{{ 'still ' ~ 'alive' }}").render([]) == "still alive"


def test_memory_is_bounded() -> None:
    """Much that is small enough one by one; the process keeps what it once had, so its highest mark is looked at."""
    source = "".join(f"{{% set x{number} = '😀' * 9000000 %}}" for number in range(11)) + "{{ x0 }}"
    with pytest.raises(FormatError, match="asks for too much"):
        Template(source).render([])
    process = jinja_process._idle[-1] if jinja_process._idle else None
    status = Path(f"/proc/{process.pid}/status") if process else Path("none")
    if status.exists():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        assert int(peak.split()[1]) < 300_000  # kB


@pytest.mark.slow
def test_no_other_thread_waits_for_a_template(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one runs, this thread's own work takes no longer; a lock that Python holds would stop it for a second."""
    monkeypatch.setattr(jinja_process, "SECONDS", 1.0)
    caught: list[Exception] = []

    def run() -> None:
        try:
            Template(_SLOW["rfind"]).render([])
        except FormatError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    used = time.process_time()
    thread.start()
    thread.join()
    assert caught
    assert time.process_time() - used < 0.5  # the second was another process's


def test_a_process_that_was_killed_is_started_again() -> None:
    template = Template("{{ messages[0].content }}")
    assert template.render(_MESSAGES) == " Hi \n"
    jinja_process._idle.append(jinja_process._Process())  # two at least
    for process in jinja_process._idle:
        os.kill(process.pid, 9)
    assert template.render(_MESSAGES) == " Hi \n"


def test_many_threads_share_few_processes() -> None:
    template = Template("{{ messages[0].content }}")
    found: list[str] = []

    def run(name: str) -> None:
        for number in range(20):
            found.append(template.render([{"role": "user", "content": f"{name} {number}"}]))

    threads = [threading.Thread(target=run, args=(name,)) for name in "abcdef"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted(f"{name} {number}" for name in "abcdef" for number in range(20))
    assert len(jinja_process._idle) <= jinja_process.MOST


def test_after_a_fork_the_child_has_processes_of_its_own() -> None:
    assert Template("{{ 'a' }}").render([]) == "a"
    if (child := os.fork()) == 0:
        code = 1
        try:
            code = int(Template("{{ 'b' }}").render([]) != "b")
            jinja_process._end_all()
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert Template("{{ 'c' }}").render([]) == "c"


def test_values_reach_the_template_as_they_are() -> None:
    values = [{"role": "user", "content": "\ud800\x00é😀", "n": [1, 2.5, None, True, {"a": -(10**30)}]}]
    found = Template("{{ messages[0].content }}|{{ messages | tojson }}").render(values)
    assert found == values[0]["content"] + "|" + json.dumps(values, ensure_ascii=False)
    with pytest.raises(OptionError, match="set is no value"):
        Template("{{ x }}").render([], x={1})


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({}) }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ raise_exception.__globals__.x }}",
        "{{ 'a'.encode() }}",
        "{{ '\t'.expandtabs(9) }}",
        "{{ (1).to_bytes(9) }}",
        "{% include '/etc/passwd' %}",
        "{{ 1 / 0 }}",
        "{{ nothing.at.all }}",
        "{{ 'a' + 1 }}",
    ],
)
def test_what_is_not_a_templates_business(source: str) -> None:
    with pytest.raises(OptionError, match=r"^chat template: ") as caught:
        Template(source).render([dict(message) for message in _MESSAGES])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", ["{% if %}", "{{ 1 | lipsum }}", "{% for %}", "{{ 'a", "{% endif %}", "{{ a b }}"])
def test_what_is_no_template(source: str) -> None:
    with pytest.raises(FormatError, match=r"^chat template: line 1: ") as caught:
        Template(source)
    assert "\n" not in str(caught.value)


_WORDS = (
    "{{ }} {% %} for if in set end else endfor endif x messages [ ] ( ) ' \" | ~ * ** % . , 9 999999999 'a' namespace"
    " macro endmacro join replace loop recursive range list {# #} = =="
)


@settings(max_examples=250, deadline=None)
@given(st.lists(st.sampled_from(_WORDS.split()), max_size=14).map(" ".join))
def test_any_text_renders_or_fails_in_one_line(source: str) -> None:
    message = ""
    try:
        result: Any = Template(source).render(_MESSAGES)
    except (FormatError, OptionError) as error:
        result, message = "", str(error)
    assert isinstance(result, str)
    assert "\n" not in message


def test_accounts_are_one_templates_own() -> None:
    large = Template(
        "{% for i in range(9) %}{% set x = 'a' * 9000000 %}{% endfor %}ok{{ 'b' | center(900000) | length }}"
    )
    for _ in range(3):
        assert large.render([]) == "ok900000"
    with pytest.raises(FormatError, match="characters are too many"):
        Template(" " * 1_000_001)


def test_long_texts_may_become_json():
    """A tool's result, for example."""
    words = "word é\n" * 50_000
    template = Template("{{ messages[0].content | tojson }}{{ messages | tojson(indent=4) }}")
    assert json.dumps(words, ensure_ascii=False) in template.render([{"role": "tool", "content": words}])
