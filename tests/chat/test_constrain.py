"""Constrained runs always have the form that was asked for."""

from __future__ import annotations

import json
import re

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camelid.chat.constrain import Constrainer, Form
from camelid.errors import OptionError


@pytest.fixture(scope="module")
def constrainer(llama):
    return Constrainer(llama.tokenizer, llama.weights.stop_ids, llama.config.vocab_size)


def random_walk(constrainer, tokenizer, form, seed, limit=400):
    """Write random allowed ids until a stop id is drawn: the model's taste plays no part."""
    rng = np.random.default_rng(seed)
    constraint = constrainer.start(form)
    ids: list[int] = []
    while len(ids) < limit:
        allowed = np.flatnonzero(constraint.mask())
        assert len(allowed), "nothing may follow, and the text may not end either"
        stops = [id for id in allowed if id in tokenizer.special_ids.values()]
        id = int(stops[0] if stops and rng.random() < 0.5 else rng.choice(allowed))
        if id in stops:
            return tokenizer.decode(ids)
        constraint.push(id)
        ids.append(id)
    return None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 10**6),
    pattern=st.sampled_from([r"[a-z]{3}", r"(yes|no)", r"[0-9]{4}-[0-9]{2}", r"[äöü€😀]{2,4}x?"]),
)
def test_any_allowed_path_matches_the_expression(constrainer, llama, seed, pattern):
    text = random_walk(constrainer, llama.tokenizer, Form(regex=pattern), seed)
    assert text is None or re.fullmatch(pattern, text)


VALUES = st.recursive(
    st.sampled_from(
        [
            {"type": "integer", "minimum": 0, "maximum": 99},
            {"type": "boolean"},
            {"type": "null"},
            {"enum": ["red", "green", 3]},
            {"type": "string", "maxLength": 6},
            {"type": "number"},
        ]
    ),
    lambda inner: st.one_of(
        st.builds(lambda items: {"type": "array", "items": items, "maxItems": 3}, inner),
        st.builds(lambda some: {"anyOf": some}, st.lists(inner, min_size=1, max_size=3)),
        st.builds(
            lambda fields, n: {
                "type": "object",
                "properties": fields,
                "required": sorted(fields)[:n],
                "additionalProperties": False,
            },
            st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3),
            st.integers(0, 3),
        ),
    ),
    max_leaves=5,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(schema=VALUES, seed=st.integers(0, 10**6))
def test_any_allowed_path_validates_against_the_schema(constrainer, llama, schema, seed):
    text = random_walk(constrainer, llama.tokenizer, Form(json_schema=schema), seed)
    if text is not None:
        jsonschema.validate(json.loads(text), schema)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_the_model_itself_keeps_to_the_form(llama, temperature):
    schema = {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 12}, "big": {"type": "boolean"}},
        "required": ["city", "big"],
        "additionalProperties": False,
    }
    for seed in range(3):
        answer = llama.chat(
            "Name a city.", form=Form(json_schema=schema), temperature=temperature, seed=seed, max_tokens=60
        )
        assert answer.finish_reason == "stop"
        jsonschema.validate(json.loads(answer.text), schema)


def test_a_grammar_leads(llama):
    grammar = 'start: "I like " fruit "!"\nfruit: "apples" | "pears"'
    answer = llama.generate("Which fruit? ", form=Form(grammar=grammar), temperature=1.0, seed=1, max_tokens=20)
    assert answer.text in ("I like apples!", "I like pears!")
    assert answer.finish_reason == "stop"


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (Form(), "give one of"),
        (Form(regex="a", grammar="b"), "give one of"),
        (Form(regex="(unclosed"), "^regex: .*unclosed group"),
        (Form(json_schema="{"), "not JSON"),
        (Form(json_schema="[]"), "must be a JSON object"),
        (Form(json_schema={"type": "llama"}), "^json_schema.type: unknown type 'llama'; choices: array, boolean"),
        (Form(json_schema={"items": {"contains": {}}}), "^json_schema.items.contains: is not supported"),
        (Form(grammar="start: missing"), "^grammar: .*missing"),
    ],
)
def test_a_wrong_form_is_refused_before_anything_is_written(llama, form, words):
    with pytest.raises(OptionError, match=words) as caught:
        llama.stream("x", form=form)
    assert "\n" not in str(caught.value)
