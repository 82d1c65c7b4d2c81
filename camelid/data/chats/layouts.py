"""The layouts that people have conversations, preferences and prompts in, each a row; which one a record has.

`messages` and `prompt`/`completion`, `prompt`/`chosen`/`rejected` are TRL's and OpenAI's, `conversations` ShareGPT's,
`instruction`/`input`/`output` Alpaca's, `instances` self-instruct's, `\\n\\nHuman: …\\n\\nAssistant: …` Anthropic's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from camelid.data.chats.labels import grade_of, safety_of
from camelid.data.chats.options import Form
from camelid.data.chats.records import ChatRecord, MisfitError, Turn, answer, turns, waiting

Fields = Mapping[str, Any]

_SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant"}
_SPEAKERS |= {"observation": "tool", "system": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_HH = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True)
class Layout:
    """One way to write a record.

    Attributes:
        name: in reports.
        fields: that a record of this layout has, none of them null.
        read: a record's conversation.
        told: whether a record that has the fields is of this layout.
    """

    name: str
    fields: tuple[str, ...]
    read: Callable[[Fields], ChatRecord]
    told: Callable[[Fields], bool] = lambda record: True

    def fits(self, record: Fields) -> bool:
        """Whether a record is of this layout."""
        return all(record.get(name) is not None for name in self.fields) and self.told(record)


def layout_of(record: Fields, form: Form) -> Layout | None:
    """The first layout that a record fits; None if it fits none."""
    return next((layout for layout in LAYOUTS[form] if layout.fits(record)), None)


def _user(text: Any, system: Any = None) -> list[Turn]:
    before = [{"role": "system", "content": system}] if system else []
    return turns([*before, {"role": "user", "content": text}])


def _assistant(text: Any) -> Turn:
    return answer(turns([{"role": "assistant", "content": text}])[0])


def _conversation(messages: Sequence[Turn], record: Fields) -> ChatRecord:
    answer(messages[-1])
    for turn in messages:
        if turn["role"] == "assistant":
            answer(turn)
    tools = record.get("tools")
    if tools is not None and not (isinstance(tools, list) and all(isinstance(tool, Mapping) for tool in tools)):
        raise MisfitError("tools are no list of functions")
    return ChatRecord(messages, tools=tools or ())


def _messages(record: Fields) -> ChatRecord:
    return _conversation(turns(record["messages"]), record)


def _sharegpt_turns(record: Fields) -> list[Turn]:
    said = record["conversations"]
    if not isinstance(said, list) or not all(isinstance(turn, Mapping) for turn in said):
        raise MisfitError("conversations are no list of turns")
    system = [{"role": "system", "content": record["system"]}] if record.get("system") else []
    rows = []
    for turn in said:
        speaker = str(turn.get("from"))
        if speaker not in _SPEAKERS:
            raise MisfitError(f"unknown speaker {speaker[:30]!r}")
        rows.append({"role": _SPEAKERS[speaker], "content": turn.get("value"), "weight": turn.get("weight")})
    return turns([*system, *rows])


def _sharegpt(record: Fields) -> ChatRecord:
    return _conversation(_sharegpt_turns(record), record)


def _alpaca_turns(record: Fields, input: Any) -> list[Turn]:
    history = record.get("history") or []
    if not isinstance(history, list) or not all(isinstance(pair, list) and len(pair) == 2 for pair in history):
        raise MisfitError("history is no list of pairs")
    before = [turn for pair in history for turn in zip(("user", "assistant"), pair, strict=True)]
    if not isinstance(record["instruction"], str) or not isinstance(input or "", str):
        raise MisfitError("instruction or input is no text")
    asked = f"{record['instruction']}\n{input}" if input else record["instruction"]
    system = [("system", record["system"])] if record.get("system") else []
    rows = [*system, *before, ("user", asked)]
    return turns([{"role": role, "content": content} for role, content in rows])


def _alpaca(record: Fields) -> ChatRecord:
    return ChatRecord([*_alpaca_turns(record, record.get("input")), _assistant(record["output"])])


def _instance(record: Fields) -> Fields:
    instances = record["instances"]
    if not isinstance(instances, list) or len(instances) != 1 or not isinstance(instances[0], Mapping):
        raise MisfitError("not just one instance")
    found: Fields = instances[0]
    return found


def _self_instruct(record: Fields) -> ChatRecord:
    instance = _instance(record)
    return ChatRecord([*_alpaca_turns(record, instance.get("input")), _assistant(instance.get("output"))])


def _completed(prompt: str, completion: str) -> Callable[[Fields], ChatRecord]:
    """A prompt and what follows it, of which the completion alone is learned."""

    def read(record: Fields) -> ChatRecord:
        before = waiting(_prompt_turns(record[prompt], record))
        told = record[completion]
        after = [_assistant(told)] if isinstance(told, str) else turns(told)
        earlier = [turn | {"weight": 0} if turn["role"] == "assistant" else turn for turn in map(dict, before)]
        return _conversation(turns([*earlier, *after]), record)

    return read


def _prompt_turns(prompt: Any, record: Fields) -> list[Turn]:
    """A text is the user's, or a dialogue as Anthropic writes it; else messages."""
    if not isinstance(prompt, str):
        return turns(prompt)
    if not prompt.startswith("\n\nHuman:"):
        return _user(prompt, record.get("system"))
    return _hh_turns(prompt.removesuffix(" ").removesuffix("\n\nAssistant:"))


def _hh_turns(text: str) -> list[Turn]:
    """`\\n\\nHuman: … \\n\\nAssistant: …` as messages, without the blanks around what is said."""
    before, *parts = _HH.split(text)
    if before.strip() or not parts:
        raise MisfitError("does not begin with Human:")
    roles = {"Human": "user", "Assistant": "assistant"}
    pairs = zip(parts[::2], parts[1::2], strict=True)
    return turns([{"role": roles[who], "content": said.strip()} for who, said in pairs])


def _hh_text(record: Fields) -> ChatRecord:
    return _conversation(_hh_turns(record["text"]), record)


def _is_hh(*names: str) -> Callable[[Fields], bool]:
    return lambda record: all(isinstance(record[name], str) and record[name].startswith("\n\nHuman:") for name in names)


def _pair(prompt: Sequence[Turn], chosen: Turn, rejected: Turn, record: Fields) -> ChatRecord:
    if _without_blanks(answer(chosen)) == _without_blanks(answer(rejected)):
        raise MisfitError("both answers are the same")
    safe = dict(zip(("chosen_safe", "rejected_safe"), safety_of(record), strict=True))
    labels = {"grade": grade_of(record), **safe}
    about = {name: value for name, value in labels.items() if value is not None}
    return ChatRecord(waiting(prompt), dict(chosen), dict(rejected), about)


def _without_blanks(turn: Turn) -> Turn:
    return {**turn, "content": turn["content"].strip()}


def _split(said: Sequence[Sequence[Turn]]) -> tuple[Sequence[Turn], Turn, Turn]:
    """Two conversations that differ in the last message alone."""
    (*before, chosen), (*other, rejected) = said
    if before != other:
        raise MisfitError("the dialogues differ before the last answer")
    return before, chosen, rejected


def _hh_pair(record: Fields) -> ChatRecord:
    return _pair(*_split([_hh_turns(record[name]) for name in ("chosen", "rejected")]), record)


def _preference(record: Fields) -> ChatRecord:
    prompt = record.get("prompt")
    before = None if prompt is None else _prompt_turns(prompt, record)
    said = []
    for name in ("chosen", "rejected"):
        value = record[name]
        if isinstance(value, str) and before is None:
            raise MisfitError("two answers and no prompt")
        rows = [{"role": "assistant", "content": value}] if isinstance(value, str) else value
        said.append(turns(rows))
    if before is not None and all(len(rows) == 1 for rows in said):
        return _pair(before, said[0][0], said[1][0], record)
    shared, chosen, rejected = _split(said)
    if isinstance(prompt, str) and not any(turn["content"] == before[-1]["content"] for turn in shared if before):
        raise MisfitError("the prompt is not in the conversations")
    if isinstance(prompt, list) and list(shared) != before:
        raise MisfitError("the conversations do not begin with the prompt")
    return _pair(shared, chosen, rejected, record)


def _asking(read: Callable[[Fields], Sequence[Turn]], *used: str) -> Callable[[Fields], ChatRecord]:
    """A prompt, and all other fields as what is known of it."""

    def prompt(record: Fields) -> ChatRecord:
        left = {name: value for name, value in record.items() if name not in (*used, *_BULK) and value is not None}
        if not isinstance(left.get("safety", False), bool):
            raise MisfitError("safety is not true or false")
        return ChatRecord(waiting(read(record)), about=left)

    return prompt


_BULK = ("id", "url", "messages", "conversations", "chosen", "rejected", "completion")

LAYOUTS: Mapping[Form, Sequence[Layout]] = {
    "conversations": (
        Layout("messages", ("messages",), _messages),
        Layout("ShareGPT", ("conversations",), _sharegpt),
        Layout("Anthropic's text", ("text",), _hh_text, _is_hh("text")),
        Layout("prompt and completion", ("prompt", "completion"), _completed("prompt", "completion")),
        Layout("question and answer", ("question", "answer"), _completed("question", "answer")),
        Layout("Alpaca", ("instruction", "output"), _alpaca),
        Layout("self-instruct", ("instruction", "instances"), _self_instruct),
    ),
    "preferences": (
        Layout("Anthropic's text", ("chosen", "rejected"), _hh_pair, _is_hh("chosen", "rejected")),
        Layout("chosen and rejected", ("chosen", "rejected"), _preference),
    ),
    "prompts": (
        Layout("prompt", ("prompt",), _asking(lambda record: _prompt_turns(record["prompt"], record), "prompt")),
        Layout("question", ("question",), _asking(lambda record: _user(record["question"]), "question")),
        Layout(
            "Anthropic's text",
            ("chosen", "rejected"),
            _asking(lambda record: _hh_pair(record).messages),
            _is_hh("chosen", "rejected"),
        ),
        Layout("chosen and rejected", ("chosen", "rejected"), _asking(lambda record: _preference(record).messages)),
        Layout("messages", ("messages",), _asking(lambda record: turns(record["messages"]))),
        Layout("ShareGPT", ("conversations",), _asking(_sharegpt_turns)),
        Layout(
            "Alpaca",
            ("instruction",),
            _asking(lambda record: _alpaca_turns(record, record.get("input")), "instruction", "input"),
            lambda record: "instances" not in record,
        ),
        Layout(
            "self-instruct",
            ("instruction", "instances"),
            _asking(lambda record: _alpaca_turns(record, _instance(record).get("input")), "instruction", "instances"),
        ),
    ),
}
