"""The OpenAPI file against a real server: whatever it is asked, it answers as described, and never with 5xx.

Some hundred cases run with the suite; `SCHEMA_CASES=2000 pytest tests/serve/test_schema.py` runs so many.
"""

from __future__ import annotations

import itertools
import os

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from camelid.serve.models import Models
from camelid.serve.worker import Worker
from tests.serve.conftest import random_llama

CASES = int(os.environ.get("SCHEMA_CASES", "300"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def models(smollm2_path):
    """A model of random weights, quick enough for hundreds of answers."""
    return Models([Worker("tiny", random_llama(smollm2_path, 64))])


def test_every_route_answers_as_described(server):
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    operations = [found.ok() for found in schema.get_all_operations()]
    asked, wrong = 0, []
    for operation, mode in itertools.product(
        operations, GenerationMode
    ):  # what fits its description, and what does not
        n_cases = -(-CASES // (2 * len(operations)))

        @settings(max_examples=n_cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy(generation_mode=mode))
        def ask(case):
            nonlocal asked
            asked += 1
            case.call_and_validate(base_url=server.url, checks=CHECKS, timeout=60)

        try:
            ask()
        except (FailureGroup, Failure) as failure:
            wrong.append(f"{operation.label}: {failure}")
        except Unsatisfiable:
            assert mode is GenerationMode.NEGATIVE  # a route that takes nothing cannot be asked wrongly
    assert not wrong, "\n\n".join(wrong)
    assert asked > CASES / 2
