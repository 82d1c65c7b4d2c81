"""Errors carry the parameter that they are about; a server tells it to programs."""

import ast
import pickle
import re
from pathlib import Path

import pytest

import camelid
from camelid.engine.request import SamplingParams
from camelid.engine.sampling.steps import check
from camelid.errors import CamelidError, OptionError
from camelid.serve.errors import error_body, named
from camelid.serve.openai.completions import COMPLETIONS

ROOMS = ("engine", "chat", "tokens", "serve")  # whose errors a request can meet
FILES = sorted(path for room in ROOMS for path in (Path(camelid.__file__).parent / room).rglob("*.py"))


def first_words(call: ast.Call) -> str:
    """What a message begins with, as far as it is written there."""
    message = call.args[0] if call.args else None
    if isinstance(message, ast.JoinedStr):
        message = message.values[0]
    return message.value if isinstance(message, ast.Constant) and isinstance(message.value, str) else ""


def test_messages_that_begin_with_a_parameter_carry_it():
    calls = [
        (path, node)
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("OptionError", "ContextError")
    ]
    begun = [(path, call) for path, call in calls if re.match(r"[a-z]\w*: ", first_words(call))]
    assert len(begun) > 30
    silent = [f"{path}:{call.lineno}" for path, call in begun if "param" not in {word.arg for word in call.keywords}]
    assert silent == []


@pytest.mark.parametrize(
    ("error", "param"),
    [
        (lambda: check(SamplingParams(logit_bias={9: 1.0}), 5), "logit_bias"),
        (lambda: SamplingParams(top_p=2), "top_p"),
        (lambda: SamplingParams(nope=2), "nope"),
    ],
)
def test_the_parameter_of_an_error(error, param):
    with pytest.raises(OptionError) as caught:
        error()
    assert caught.value.param == param
    assert str(caught.value).startswith(f"{param}: ")
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (copy.param, str(copy)) == (param, str(caught.value))
    assert error_body(caught.value)["error"]["param"] == param
    assert camelid.CamelidError("nothing of the kind: here").param is None


def test_renamed_for_a_client():
    with pytest.raises(CamelidError) as caught, named(COMPLETIONS):
        raise OptionError("text: has half a character", param="text")
    assert error_body(caught.value)["error"] == {
        "message": "prompt: has half a character",
        "type": "invalid_request_error",
        "param": "prompt",
        "code": None,
    }
