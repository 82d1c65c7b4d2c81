"""Bodies before they are read: what they may be, and how much they may hold."""

from __future__ import annotations

import json
import tracemalloc

import pytest
from pydantic import ValidationError

from camelid.errors import CamelidError
from camelid.serve.body import MOST_CONTAINERS, MOST_DEPTH, MOST_TEXTS, MOST_VALUES, check_json
from camelid.serve.openai.requests import ChatRequest, CompletionRequest, EmbeddingRequest

MESSAGES = [{"role": "user", "content": "?"}]


def refused(body, **headers):
    given = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    with pytest.raises(CamelidError) as caught:
        check_json(body, given)
    return caught.value


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"[" + b"0," * MOST_VALUES + b"0]", "values"),
        (b"[" + b"{}," * MOST_CONTAINERS + b"0]", "lists and objects"),
        (b"[" + b'"",' * MOST_TEXTS + b'""]', "texts"),
        (b"[" * (MOST_DEPTH + 1) + b"]" * (MOST_DEPTH + 1), "levels"),
        (b"[" + b"9" * 5000 + b"]", "400 digits"),
        ('{"a": "b"}'.encode("utf-16"), "UTF-8"),
        ('{"a": "b"}'.encode("utf-16-le"), "UTF-8"),
        (b'{"a": "\xff"}', "byte 7 is not UTF-8"),
    ],
)
def test_what_holds_too_much_or_is_no_text_is_refused(body, words):
    error = refused(body)
    assert error.status == 400
    assert words in str(error)


@pytest.mark.parametrize(
    "text", ['[{,:"\\' * 10**5, "\\" * 10**5, '"' * 10**5 + "\\", "0123456789" * 10**4, "日本語、" * 10**5]
)
def test_what_stands_in_texts_is_not_counted(text):
    check_json(json.dumps({"messages": [{"role": "user", "content": text}]}).encode(), {})
    check_json(json.dumps({"messages": [{"role": "user", "content": text}]}, ensure_ascii=False).encode(), {})


@pytest.mark.parametrize("kind", ["", "application/json", "Application/JSON; charset=utf-8", "application/x+json"])
def test_kinds_that_are_json(kind):
    check_json(b"5", {b"content-type": kind.encode()})


def test_json_that_curl_sends_is_taken_and_other_kinds_are_named():
    form = "application/x-www-form-urlencoded"
    check_json(b' {"prompt": "a"}', {b"content-type": form.encode()})
    assert "Content-Type: multipart/form-data is not supported" in str(
        refused(b"--x", content_type="multipart/form-data")
    )
    assert refused(b"prompt=a", content_type=form).status == 415
    packed = refused(b"\x1f\x8b", content_encoding="gzip")
    assert (packed.status, packed.code) == (415, "unsupported_encoding")


WRONG = list(range(10**5))
ATTACKS = [
    (ChatRequest, {"messages": WRONG}),
    (ChatRequest, {"messages": [{"role": "user", "content": WRONG}]}),
    (ChatRequest, {"messages": [{"role": "assistant", "content": "", "tool_calls": WRONG}]}),
    (ChatRequest, {"messages": MESSAGES, "tools": WRONG}),
    (ChatRequest, {"messages": MESSAGES, "stop_ids": ["a"] * 10**5}),
    (ChatRequest, {"messages": MESSAGES, "stop": WRONG}),
    (ChatRequest, {"messages": MESSAGES, "modalities": WRONG}),
    (ChatRequest, {"messages": MESSAGES, "logit_bias": {f"x{number}": "a" for number in WRONG}}),
    (ChatRequest, {"messages": MESSAGES, "metadata": {str(number): number for number in WRONG}}),
    (ChatRequest, {"messages": MESSAGES, **{f"x{number}": number for number in WRONG}}),
    (CompletionRequest, {"prompt": [None] * 10**5}),
    (CompletionRequest, {"prompt": [[None] * 10**5]}),
    (EmbeddingRequest, {"input": [-1] * 10**5}),
]


@pytest.mark.parametrize(("model", "body"), ATTACKS, ids=range(len(ATTACKS)))
def test_a_hundred_thousand_mistakes_are_one_error(model, body):
    tracemalloc.start()
    try:
        with pytest.raises(ValidationError) as caught:
            model.model_validate(body)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert caught.value.error_count() < 10
    assert peak < 20 * 2**20
