"""Keywords of Python's functions are the fields of SamplingParams."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import get_args, get_origin, get_type_hints

import pytest

from camelid.chat.sampling_choices import OrderlessKeywords, SamplingKeywords
from camelid.engine.request import SamplingParams


def wider(kind):
    """What pydantic also takes for a field of this type: a list for a tuple, any mapping for a dict."""
    if get_origin(kind) is tuple:
        return Sequence[get_args(kind)[0]]
    return Mapping[get_args(kind)] if get_origin(kind) is dict else kind


@pytest.mark.parametrize("name", sorted({*get_type_hints(SamplingKeywords), *SamplingParams.model_fields}))
def test_keywords_are_the_fields_with_their_types(name):
    assert get_type_hints(SamplingKeywords)[name] == wider(get_type_hints(SamplingParams)[name])


def test_infill_has_an_order_of_its_own():
    assert {*get_type_hints(OrderlessKeywords)} == {*SamplingParams.model_fields} - {"order"}
    assert not OrderlessKeywords.__required_keys__ | SamplingKeywords.__required_keys__
