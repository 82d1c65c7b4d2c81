"""Schemas are kept exactly, or refused with the place of what is not: `jsonschema` is the oracle."""

from __future__ import annotations

import json
from decimal import Decimal

import jsonschema
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from camelid.chat.constrain import Constrainer, Form
from camelid.chat.json_disjoint import Resolver, may_both_match
from camelid.chat.json_schema import SchemaError, checked_schema
from camelid.errors import OptionError
from tests.tokens.vocabularies import small_bytes

BIG = 2**53
NAMES = st.sampled_from(["a", "b", "kind", "x/y", "ü", 'q"', "c d"])


@pytest.fixture(scope="module")
def tokenizer():
    return small_bytes()


@pytest.fixture(scope="module")
def constrainer(tokenizer):
    it = Constrainer(tokenizer, (0,), tokenizer.vocab_size)
    yield it
    it.close()


def accepts(constrainer, tokenizer, schema, text):
    """Whether a text may be written, and may end there."""
    constraint = constrainer.start(Form(json_schema=schema))
    for byte in text.encode():
        id = next(id for id in range(1, tokenizer.vocab_size) if tokenizer.token_bytes(id) == bytes([byte]))
        if not constraint.mask()[id]:
            return False
        constraint.push(id)
    return bool(constraint.finished or constraint.mask()[0])


def walk(constrainer, tokenizer, schema, seed, limit=250):
    """A text of random allowed bytes; None if it does not end in time."""
    rng = np.random.default_rng(seed)
    constraint, ids = constrainer.start(Form(json_schema=schema)), []
    while len(ids) < limit:
        allowed = np.flatnonzero(constraint.mask())
        if constraint.finished or (0 in allowed and rng.random() < 0.5):
            return b"".join(tokenizer.token_bytes(id) for id in ids).decode()
        closing = [id for id in allowed if tokenizer.token_bytes(int(id)) in (b'"', b"]", b"}")]
        id = int(rng.choice(closing if closing and rng.random() < 0.3 else [id for id in allowed if id]))
        constraint.push(id)
        ids.append(id)
    return None


NUMBERS = st.one_of(
    st.integers(-1000, 1000),
    st.sampled_from([BIG, BIG - 1, -BIG, BIG + 1, -BIG - 1, 2**63 - 1, 2**63, -(2**63), 10**18, 10**22]),
    st.sampled_from([0.5, -0.25, 0.1, 1e-7, 3.0, 1e16]),
)
BOUNDS = st.fixed_dictionaries(
    {"type": st.sampled_from(["integer", "number"])},
    optional={
        "minimum": NUMBERS,
        "maximum": NUMBERS,
        "exclusiveMinimum": NUMBERS,
        "exclusiveMaximum": NUMBERS,
        "multipleOf": st.sampled_from([1, 2, 7, 100, 0.5, 0.01, 0.07, 2.5]),
    },
)
LEAVES = st.one_of(
    BOUNDS,
    st.builds(lambda value: {"const": value}, st.one_of(NUMBERS, st.text('aü"\\\n', max_size=3), st.none())),
    st.builds(lambda some: {"enum": some}, st.lists(st.one_of(NUMBERS, st.booleans()), min_size=1, max_size=3)),
    st.builds(
        lambda low, more: {"type": "string", "minLength": low, "maxLength": low + more}, *[st.integers(0, 3)] * 2
    ),
    st.sampled_from([{"type": "null"}, {"type": "boolean"}, {"type": "string", "format": "date"}]),
)


def inner(schemas):
    some = st.lists(schemas, min_size=1, max_size=3)
    objects = st.builds(
        lambda own, n, more, patterns: {
            "type": "object",
            "properties": own,
            "required": sorted(own)[:n],
            "additionalProperties": more,
            **({"patternProperties": patterns} if patterns else {}),
        },
        st.dictionaries(NAMES, schemas, max_size=3),
        st.integers(0, 3),
        st.one_of(st.just(False), schemas),
        st.one_of(st.none(), st.builds(lambda one: {"^a": one}, schemas)),
    )
    return st.one_of(
        objects,
        st.builds(lambda one: {"anyOf": one}, some),
        st.builds(lambda one: {"oneOf": one}, some),
        st.builds(lambda one: {"allOf": one}, some),
        st.builds(lambda one, n: {"type": "array", "items": one, "maxItems": n}, schemas, st.integers(0, 3)),
        st.builds(lambda own: {"type": "array", "prefixItems": own, "items": False}, some),
    )


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(schema=st.recursive(LEAVES, inner, max_leaves=6), seed=st.integers(0, 10**6))
def test_what_is_written_after_any_schema_is_valid(constrainer, tokenizer, schema, seed):
    try:
        text = walk(constrainer, tokenizer, schema, seed)
    except OptionError:
        return
    if text is not None:
        value = json.loads(text, parse_float=Decimal)
        jsonschema.Draft202012Validator(_exact(schema)).validate(value)


def _exact(schema):
    """The schema with decimal numbers, so that the oracle does not round."""
    return json.loads(json.dumps(schema), parse_float=Decimal)


@pytest.mark.parametrize("value", [0, 7, -7, BIG, -BIG, BIG - 1, 10**15 + 1])
def test_whole_numbers_come_out_as_they_went_in(constrainer, tokenizer, value):
    for schema in ({"const": value}, {"enum": [value]}, {"type": "integer", "minimum": value, "maximum": value}):
        text = walk(constrainer, tokenizer, schema, 0)
        assert int(text) == value
        for other in (value + 1, value - 1):
            assert not accepts(constrainer, tokenizer, schema, str(other))


@pytest.mark.parametrize("bound", [BIG - 1, 2**60, 2**63 - 1])
def test_bounds_of_whole_numbers_are_exact_up_to_64_bits(constrainer, tokenizer, bound):
    schema = {"type": "integer", "maximum": bound}
    assert accepts(constrainer, tokenizer, schema, str(bound))
    assert accepts(constrainer, tokenizer, schema, str(bound - 1))
    assert not accepts(constrainer, tokenizer, schema, str(bound + 1))


CAT = {"type": "object", "properties": {"kind": {"const": "cat"}, "lives": {"type": "integer"}}, "required": ["kind"]}
DOG = {"type": "object", "properties": {"kind": {"const": "dog"}, "tricks": {"type": "integer"}}, "required": ["kind"]}
UNION = {"oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}], "$defs": {"Cat": CAT, "Dog": DOG}}


def test_a_union_told_apart_by_a_constant_is_kept(constrainer, tokenizer):
    tagged = {**UNION, "discriminator": {"propertyName": "kind"}}  # as pydantic writes it
    assert accepts(constrainer, tokenizer, tagged, '{"kind": "dog", "tricks": 3}')
    assert not accepts(constrainer, tokenizer, tagged, '{"kind": "cow"}')
    assert not accepts(constrainer, tokenizer, tagged, '{"kind": "cat", "lives": "x"}')


@pytest.mark.parametrize(
    ("one", "other", "may"),
    [
        (CAT, DOG, False),
        (CAT, CAT, True),
        ({"type": "integer"}, {"type": "number"}, True),
        ({"type": "integer"}, {"type": "string"}, False),
        ({"const": 1}, {"const": 1.0}, True),
        ({"const": 1}, {"const": True}, False),
        ({"const": BIG}, {"const": BIG + 1}, False),
        ({"minimum": 3}, {"maximum": 2}, True),  # of texts they say nothing
        ({"type": "number", "minimum": 3}, {"type": "number", "exclusiveMaximum": 3}, False),
        ({"type": "number", "minimum": 3}, {"type": "number", "maximum": 3}, True),
        ({"type": "string", "maxLength": 2}, {"type": "string", "minLength": 3}, False),
        ({"type": "array", "maxItems": 2}, {"type": "array", "minItems": 3}, False),
        ({"type": "object", "required": ["a"]}, {"type": "object", "additionalProperties": False}, False),
        ({"type": "object"}, {"type": "object", "properties": {"a": False}}, True),
        ({"anyOf": [{"type": "null"}, CAT]}, {"anyOf": [{"type": "string"}, DOG]}, False),
        ({"anyOf": [{"type": "null"}, CAT]}, {"anyOf": [{"type": "null"}, DOG]}, True),
        ({"allOf": [CAT, {"required": ["lives"]}]}, DOG, False),
        ({}, {"type": "null"}, True),
        (False, {}, False),
    ],
)
def test_what_is_proved_disjoint(one, other, may):
    assert may_both_match(one, other, Resolver({})) is may
    assert may_both_match(other, one, Resolver({})) is may


def test_a_recursive_reference_proves_nothing():
    root = {"$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}]}, "B": {"anyOf": [{"$ref": "#/$defs/B"}]}}}
    assert may_both_match({"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}, Resolver(root))


@settings(max_examples=200, deadline=None)
@given(
    one=st.recursive(LEAVES, inner, max_leaves=4),
    other=st.recursive(LEAVES, inner, max_leaves=4),
    values=st.lists(st.one_of(NUMBERS, st.booleans(), st.none(), st.text("ab", max_size=3)), max_size=20),
)
def test_nothing_matches_two_schemas_that_are_proved_disjoint(one, other, values):
    if not may_both_match(one, other, Resolver({})):
        validators = [jsonschema.Draft202012Validator(schema) for schema in (one, other)]
        for value in values:
            assert not all(validator.is_valid(value) for validator in validators)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"const": BIG + 1}, f"here.const: {BIG + 1} cannot be kept exactly"),
        ({"enum": [1, {"a": [BIG + 1]}]}, r"here.enum\[1\].a\[0\]: "),
        ({"type": "integer", "minimum": BIG + 1}, "here.minimum: "),
        ({"type": "number", "maximum": BIG + 2}, "here.maximum: "),
        ({"type": "integer", "multipleOf": 100000007}, "here.multipleOf: is not supported beyond 100000"),
        ({"allOf": [{"multipleOf": 997}, {"multipleOf": 991}]}, r"here.allOf\[1\].multipleOf: "),
        ({"type": "number", "multipleOf": 0.07}, "here.multipleOf: "),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "here.oneOf: .* choice 0 and choice 1; use anyOf"),
        ({"properties": {"a b": {"not": {}}}}, r'here.properties\["a b"\].not: is not supported'),
        ({"type": "string", "format": "idn-email"}, "here.format: unknown format 'idn-email'; did you mean 'email'"),
        ({"type": "text"}, "here.type: unknown type 'text'"),
        ({"$ref": "http://example.org/schema"}, r"here.\$ref: only places inside the schema"),
        ({"$ref": "#/$defs/a"}, r"here.\$ref: there is nothing at #/\$defs/a"),
        ({"$ref": "#/title", "title": {}}, r"here.\$ref: #/title is not the place of a schema"),
        ({"type": "object", "minProperties": 2}, "here.minProperties: is not supported above 1"),
        ({"minItems": -1}, "here.minItems: must be a whole number"),
        ({"items": 3}, "here.items: must be a schema, got a number"),
        ({"anyOf": []}, "here.anyOf: must be a list with at least one schema"),
        ({"required": "a"}, "here.required: must be a list of names"),
        ({"uniqueItems": True}, "here.uniqueItems: is not supported"),
    ],
)
def test_what_cannot_be_kept_is_refused_with_its_place(schema, message):
    with pytest.raises(SchemaError, match=f"^{message}"):
        checked_schema(json.dumps(schema), "here")


def test_numbers_with_more_digits_than_a_float_has_are_refused():
    for digits in ("0.1234567890123456789", "1e400"):
        with pytest.raises(SchemaError, match=r"^here: the number .* has more digits than are kept"):
            checked_schema(f'{{"type": "number", "maximum": {digits}}}', "here")


def test_words_that_only_describe_are_dropped():
    described = {
        "title": "T",
        "deprecated": True,
        "x-guidance": {"lenient": True},
        "$id": "http://a/b",
        "examples": [3],
    }
    assert checked_schema(json.dumps({**described, "type": "integer"}), "here") == {"type": "integer"}
    assert checked_schema('{"type": "integer", "format": "int64"}', "here") == {"type": "integer"}


def test_another_spelling_of_a_name_is_the_same_name(constrainer, tokenizer):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "null"}}
    assert accepts(constrainer, tokenizer, schema, '{"a": 1, "b": null}')
    assert not accepts(constrainer, tokenizer, schema, '{"\\u0061": null}')


def test_messages_name_no_option_of_a_library(constrainer):
    for form in (Form(grammar='start: %json {"oneOf": [{"type": "integer"}, {"type": "number"}]}'),):
        with pytest.raises(OptionError) as caught:
            constrainer.start(form)
        assert "coerce" not in str(caught.value)


def test_references_into_lists_and_to_the_whole(constrainer, tokenizer):
    text = {"type": "string", "maxLength": 3}
    node = {
        "type": "object",
        "properties": {"l": {"$ref": "#/properties/tree/anyOf/1"}, "v": {"$ref": "#/properties/tree/anyOf/0"}},
        "required": ["v"],
        "additionalProperties": False,
    }
    schema = {"type": "object", "properties": {"tree": {"anyOf": [text, node]}}, "additionalProperties": False}
    for value in ({"tree": {"l": {"v": "a"}, "v": "b"}}, {"tree": {"l": "a", "v": "b"}}, {"tree": "c"}):
        valid = jsonschema.Draft202012Validator(schema).is_valid(value)
        assert accepts(constrainer, tokenizer, schema, json.dumps(value)) == valid
