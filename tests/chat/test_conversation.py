"""A conversation and its commands, without a terminal; and how answers are cut into blocks."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import camelid
from camelid.chat.conversation import COMMANDS, Conversation, command
from camelid.chat.results import Delta
from camelid.chat.terminal import answer_pipe, show_answer, split_blocks
from camelid.console import Terminal
from camelid.engine.request import Token
from camelid.errors import CamelidError, OptionError, ResourceError
from camelid.tokens.templates.chat_format import Message


@pytest.fixture
def talk(llama):
    return Conversation(llama, llama.params.with_(temperature=0, max_tokens=12))


def answer(deltas):
    return "".join(delta.text for delta in deltas)


@pytest.mark.slow
def test_turns_are_kept_and_a_question_can_be_asked_anew(talk):
    first = answer(talk.ask("What is the capital of France?"))
    assert "Paris" in first
    assert [turn.role for turn in talk.turns] == ["user", "assistant"]
    assert answer(talk.again()) == first
    assert len(talk.turns) == 2


def test_an_answer_that_was_stopped_is_kept_as_far_as_it_came(talk):
    deltas = talk.ask("Count to one hundred.")
    begun = next(deltas).text + next(deltas).text
    deltas.close()
    assert talk.turns[-1].content == begun


def test_saved_and_read_again(talk, tmp_path):
    answer(talk.ask("Hello!"))
    command(talk, "/system Be brief.")
    place = tmp_path / "talk.json"
    assert "saved" in command(talk, f"/save {place}")
    assert [row["role"] for row in json.loads(place.read_text())] == ["system", "user", "assistant"]
    before = talk.messages
    command(talk, "/reset")
    command(talk, "/system")
    assert talk.messages == []
    command(talk, f"/load {place}")
    assert talk.messages == before
    assert [path.name for path in tmp_path.iterdir()] == ["talk.json"]


def test_options_change_with_set(talk):
    command(talk, "/set temperature 0.5")
    command(talk, "/set max-tokens 3")
    assert (talk.params.temperature, talk.params.max_tokens) == (0.5, 3)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/sytem x", "did you mean 'system'"),
        ("/set temperature", "wants a name and a value"),
        ("/set temperature -3", "temperature"),
        ("/set heat 3", "no such option"),
        ("/save", "file name"),
        ("/load /no/such/file", "not a saved conversation"),
    ],
)
def test_mistakes_in_commands_are_told(talk, line, words):
    with pytest.raises(OptionError, match=words):
        command(talk, line)


def test_nothing_to_regenerate_is_told(talk):
    with pytest.raises(OptionError, match="nothing was asked"):
        talk.again()


def test_a_place_that_cannot_be_written_leaves_nothing(talk, tmp_path):
    with pytest.raises(ResourceError, match="cannot be written"):
        talk.save(tmp_path / "no" / "folder" / "talk.json")


def test_every_command_says_what_it_does():
    assert all(what for what, _ in COMMANDS.values())


@given(st.lists(st.sampled_from(["text\n", "\n", "```py\n", "```\n", "  code\n", "half"]), max_size=12))
def test_blocks_lose_nothing_and_never_cut_a_fence(pieces):
    text = "".join(pieces)
    closed, rest = split_blocks(text)
    assert closed + rest == text
    assert closed == "" or closed.endswith("\n")
    assert sum(line.lstrip().startswith("```") for line in closed.splitlines()) % 2 == 0


def test_an_answer_is_drawn_as_markdown(talk):
    screen = io.StringIO()
    console = Console(file=screen, width=60, force_terminal=False)
    show_answer(talk.ask("What is the capital of France?"), console)
    assert "Paris" in screen.getvalue()
    assert "tokens read" in screen.getvalue()


@pytest.mark.slow
def test_a_model_that_brings_no_template_lists_the_formats(smollm2_path):
    silent = camelid.load(smollm2_path, backend="numpy")
    silent.weights.chat_template = None
    with pytest.raises(CamelidError, match="chatml"):
        silent.chat("Hello")
    named = camelid.load(smollm2_path, backend="numpy", chat_format="chatml")
    named.weights.chat_template = None
    assert "Paris" in named.chat("What is the capital of France?", temperature=0, max_tokens=20).text


def delta(text):
    token = Token(0, 0, 0, 5, -1.0, 1, -1.0, (), None, 0)
    return Delta(text, token, 0, None, 0.1, 3, False)


EVIL = "a\x1b]52;c;aGk=\x07 \x9b31m [link=file:///x]b[/link] :smile: [c](http://d.example/\x1b)\n"


def test_a_models_text_cannot_steer_the_terminal():
    out = io.StringIO()
    console = Terminal(file=out, force_terminal=True, width=100)
    show_answer(iter([delta(EVIL[:3]), delta(EVIL[3:])]), console)
    console.print(EVIL, markup=False)
    shown = out.getvalue()
    assert not set("\x07\x9b") & set(shown)
    assert "\x1b]" not in shown
    for words in (r"a\x1b]52;c;aGk=\x07 \x9b31m", "[link=file:///x]b[/link]", ":smile:", "http://d.example/"):
        assert words in shown


@pytest.mark.parametrize("terminal", [True, False])
def test_a_pipe_gets_every_byte_and_a_terminal_none_that_steers_it(monkeypatch, terminal):
    out = io.StringIO()
    monkeypatch.setattr(out, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr("sys.stdout", out)
    talk = SimpleNamespace(ask=lambda text: iter([delta("x\r\n\x1b[2J")]))
    answer_pipe(talk, "Hi")
    assert out.getvalue() == ("x\n\\x1b[2J\n" if terminal else "x\r\n\x1b[2J\n")


def test_a_turn_is_not_lost_when_it_cannot_be_asked_anew(talk):
    answer(talk.ask("Hello!"))
    turns = list(talk.turns)
    talk.params = talk.params.with_(logit_bias={10**6: 1.0})
    with pytest.raises(CamelidError):
        answer(talk.again())
    assert talk.turns == turns
    talk.turns = [Message("user", "Hi")]
    with pytest.raises(OptionError, match="nothing was asked yet"):
        talk.again()


def test_a_saved_conversation_with_a_byte_order_mark_is_read(talk, tmp_path):
    place = tmp_path / "talk.json"
    place.write_bytes('\ufeff[{"role": "user", "content": "one\\r\\n"}]'.encode())
    talk.read(place)
    assert [turn.content for turn in talk.turns] == ["one\r\n"]
