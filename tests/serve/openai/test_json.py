"""response_format as the official client sees it: what is promised holds, or is refused."""

from __future__ import annotations

import json
import random
from enum import StrEnum

import jsonschema
import openai
import pytest
from pydantic import BaseModel, Field

from camelid.chat.forms import FormProcess
from camelid.serve.errors import ApiError
from camelid.serve.openai.stream import PromiseCheck
from tests.serve.openai.official import SKY, assert_same, official
from tests.serve.openai.test_choices import delta


@pytest.fixture(scope="module")
def client(server):
    with official(server) as it:
        yield it


def ask(client, form, **changes):
    asked = {"model": "tiny", "messages": SKY, "response_format": form, "seed": 1, "temperature": 1, **changes}
    return client.chat.completions.create(**asked)


def as_form(schema):
    return {"type": "json_schema", "json_schema": {"name": "it", "strict": True, "schema": schema}}


def random_schema(rng, depth=0):
    """A schema whose values are short, so that answers end."""
    inner = [] if depth == 2 else ["object", "object", "array", "anyOf"]
    kind = rng.choice(["integer", "number", "string", "pattern", "boolean", "null", "enum", "const", *inner])
    if kind == "integer":
        low = rng.randint(-50, 50)
        return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 500)}
    if kind == "number":
        return {"type": "number", "minimum": 0, "maximum": rng.randint(1, 9)}
    if kind == "string":
        low = rng.randint(0, 3)
        return {"type": "string", "minLength": low, "maxLength": low + rng.randint(0, 4)}
    if kind == "pattern":
        return {"type": "string", "pattern": rng.choice(["^[a-f]{2,4}$", "^(ja|nein)$", "^[0-9]{4}-[0-9]{2}$"])}
    if kind == "enum":
        return {"enum": rng.sample(["red", "grün", 3, 4.5, None, True, [1, 2], {"a": "b"}], rng.randint(1, 4))}
    if kind == "const":
        return {"const": rng.choice(["über", 7, None, {"k": [1, "2"]}])}
    if kind == "array":
        low = rng.randint(0, 2)
        items = random_schema(rng, depth + 1)
        return {"type": "array", "items": items, "minItems": low, "maxItems": low + rng.randint(0, 2)}
    if kind == "anyOf":
        return {"anyOf": [random_schema(rng, depth + 1) for _ in range(rng.randint(1, 3))]}
    if kind == "object":
        names = rng.sample(["a", "b c", "ü", '"', "\\", "e"], rng.randint(1, 3))
        return {
            "type": "object",
            "properties": {name: random_schema(rng, depth + 1) for name in names},
            "required": rng.sample(names, rng.randint(0, len(names))),
            "additionalProperties": False,
        }
    return {"type": kind}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(50))
def test_answers_follow_random_schemas(client, seed):
    schema = {
        "type": "object",
        "properties": {"it": random_schema(random.Random(seed))},
        "required": ["it"],
        "additionalProperties": False,
    }
    whole = ask(client, as_form(schema), seed=seed)
    assert whole.choices[0].finish_reason == "stop", "the schema lets answers grow too long for a test"
    jsonschema.validate(json.loads(whole.choices[0].message.content), schema)
    assert_same(whole, ask(client, as_form(schema), seed=seed, stream=True))


class Mood(StrEnum):
    """How somebody feels."""

    HAPPY, SAD = "happy", "sad"


class Person(BaseModel):
    """Somebody."""

    name: str = Field(pattern="^[A-Z][a-z]{1,8}$")
    age: int = Field(ge=0, le=99)
    mood: Mood


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # the client's, when it sends its objects back
@pytest.mark.parametrize("model", ["smollm2", "tiny"])
def test_the_clients_own_helpers_give_objects(client, model):
    asked = {"model": model, "messages": [{"role": "user", "content": "Describe a person."}], "seed": 3}
    parsed = client.chat.completions.parse(**asked, response_format=Person)
    assert isinstance(parsed.choices[0].message.parsed, Person)
    with client.chat.completions.stream(**asked, response_format=Person) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.done" in kinds
    assert final.choices[0].message.parsed == parsed.choices[0].message.parsed
    back = [*asked["messages"], parsed.choices[0].message, {"role": "user", "content": "And now?"}]
    assert client.chat.completions.create(model=model, messages=back, max_tokens=1)


def test_the_default_model_fills_a_schema_in_with_sense(client):
    schema = {
        "type": "object",
        "properties": {
            "capital": {"enum": ["Berlin", "Paris", "Rome"]},
            "population": {"type": "integer", "maximum": 10**8, "minimum": 0},
        },
        "required": ["capital", "population"],
        "additionalProperties": False,
    }
    talk = [{"role": "user", "content": "What is the capital of France, and how many people live there?"}]
    whole = ask(client, as_form(schema), model="smollm2", messages=talk, temperature=0, max_tokens=60)
    assert whole.choices[0].finish_reason == "stop"
    jsonschema.validate(json.loads(whole.choices[0].message.content), schema)


def test_any_object(client):
    for seed in range(4):
        whole = ask(client, {"type": "json_object"}, model="smollm2", seed=seed, n=2, max_tokens=80)
        for choice in whole.choices:
            assert choice.message.content.startswith("{")
            if choice.finish_reason == "stop":
                assert isinstance(json.loads(choice.message.content), dict)


def test_a_cut_answer_says_so(client):
    schema = {"type": "string", "minLength": 100, "maxLength": 200}
    whole = ask(client, as_form(schema), max_tokens=5)
    assert whole.choices[0].finish_reason == "length"


@pytest.mark.slow
def test_without_a_schema_it_is_any_json(client):
    form = {"type": "json_schema", "json_schema": {"name": "any"}}
    found = [ask(client, form, seed=seed, max_tokens=24).choices[0] for seed in range(6)]
    for choice in found:
        if choice.finish_reason == "stop":
            json.loads(choice.message.content)


def test_a_form_that_nothing_satisfies_is_the_clients_mistake(client):
    for schema in ({"$ref": "#"}, {"anyOf": []}):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, as_form(schema))
        assert "<state>" not in caught.value.message


def test_a_complete_answer_that_breaks_its_promise_is_an_error():
    broken = PromiseCheck("json")
    broken.take(delta('{"a": '))
    with pytest.raises(ApiError, match="not the form that was promised") as caught:
        broken.take(delta("oops", "stop"))
    assert caught.value.status == 500
    cut = PromiseCheck("json")
    assert cut.take(delta('{"a": ', "length")).finish_reason == "length"


def test_a_form_that_takes_too_much_is_refused_with_its_parameter(client):
    for schema, where in (
        ({"type": "string", "pattern": "^(x{1000}){1000}$"}, ""),
        ({"properties": {"a": {"type": "integer", "multipleOf": 100000007}}}, ".properties.a.multipleOf"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, ".oneOf"),
        ({"const": 2**53 + 1}, ".const"),
    ):
        with pytest.raises(openai.BadRequestError) as caught:
            ask(client, as_form(schema), stream=True)
        assert caught.value.param == f"response_format.json_schema.schema{where}"


def test_the_prompts_length_is_looked_at_before_the_form(client, monkeypatch):
    monkeypatch.setattr(FormProcess, "compiled", lambda *_: pytest.fail("the form came first"))
    long = [{"role": "user", "content": "word " * 400}]
    with pytest.raises(openai.BadRequestError) as caught:
        ask(client, as_form({"type": "string"}), messages=long)
    assert caught.value.code == "context_length_exceeded"
