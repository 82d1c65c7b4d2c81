"""The sampling panel: what `SamplingParams` says of its fields, as things to fill in."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel

from camelid.chat.llama import Llama
from camelid.engine.request import SamplingParams
from camelid.errors import OptionError, one_of

FRONT = ("temperature", "top_p", "top_k", "max_tokens", "seed")  # seen at once, in this order; the others on demand
NOT_HERE = ("n", "logprobs", "logit_bias", "stop_ids", "draft_tokens")  # of no use to a conversation of people
FINE = ("epsilon", "eta")  # choices among small probabilities
MOST_EXACT = 2**53 - 1  # the largest whole number that a browser keeps


class Field(BaseModel):
    """One choice: how it is called and explained, which values it takes, and the one it has if left empty."""

    name: str
    label: str
    help: str
    kind: Literal["number", "integer", "switch", "choice", "lines"]
    default: Any
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None
    choices: list[str] = []
    front: bool


def fields(llama: Llama) -> list[Field]:
    """All that a conversation can choose, those of `FRONT` first; defaults are the model's own."""
    properties = SamplingParams.model_json_schema()["properties"]
    names = [*FRONT, *(name for name in properties if name not in (*FRONT, *NOT_HERE))]
    return [_field(name, properties[name], getattr(llama.params, name)) for name in names]


def check(params: Mapping[str, Any]) -> dict[str, Any]:
    """What a conversation is to be sampled with.

    Raises:
        OptionError: a name that is not in the panel, or a value that its field refuses.
    """
    known = [name for name in SamplingParams.model_fields if name not in NOT_HERE]
    for name, value in params.items():
        if name not in known:
            raise OptionError(f"{name}: cannot be chosen here; {one_of(name, known)}", param=name)
        if isinstance(value, float) and not math.isfinite(value):
            raise OptionError(f"{name}: must be a finite number, got {value}", param=name)
    SamplingParams(**params)
    return dict(params)


def _field(name: str, schema: Mapping[str, Any], default: Any) -> Field:
    kinds = [schema, *schema.get("anyOf", [])]
    said = {key: value for kind in kinds for key, value in kind.items()}
    types = {kind["type"] for kind in kinds if "type" in kind} - {"null"}
    if "enum" in said:
        kind: Any = "choice"
    else:
        kind = {"number": "number", "integer": "integer", "boolean": "switch", "array": "lines"}[types.pop()]
    maximum = said.get("maximum", said.get("exclusiveMaximum"))
    return Field(
        name=name,
        label=name.replace("_", " ").capitalize(),
        help=schema["description"],
        kind=kind,
        default=list(default) if isinstance(default, tuple) else default,
        minimum=said.get("minimum", said.get("exclusiveMinimum")),
        maximum=min(maximum, MOST_EXACT) if maximum is not None else None,
        step={"number": 0.0001 if name in FINE else 0.01, "integer": 1}.get(kind),
        choices=said.get("enum", []),
        front=name in FRONT,
    )
