"""The OpenAPI file against a real server: whatever it is asked, it answers as described, and never with 5xx.

Some hundred cases run with the suite; `SCHEMA_CASES=2000 pytest tests/serve/test_schema.py` runs so many.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from urllib.request import Request, urlopen

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


@pytest.mark.slow
def test_every_route_answers_as_described(server):
    """Cases that fit the description and cases that do not, route by route, until there are enough."""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    left = list(itertools.product((found.ok() for found in schema.get_all_operations()), GenerationMode))
    statuses, wrong = Counter(), []
    while left and statuses.total() < CASES and not wrong:
        n_cases = -(-(CASES - statuses.total()) // len(left))
        for operation, mode in list(left):
            try:
                found = ask(operation, mode, n_cases, server.url)
            except (FailureGroup, Failure) as failure:
                wrong.append(f"{operation.label}: {failure}")
            except Unsatisfiable:
                assert mode is GenerationMode.NEGATIVE  # a route that takes nothing cannot be asked wrongly
                left.remove((operation, mode))
            else:
                statuses += found
                if found.total() < n_cases:  # there are no more
                    left.remove((operation, mode))
    assert not wrong, "\n\n".join(wrong)
    assert statuses.total() >= CASES
    assert sum(count for status, count in statuses.items() if status < 300) > CASES / 10
    assert statuses[400] > CASES / 10


def name_what_is_there(case, url):
    """The model and a new conversation: a file cannot tell their names, and random ones only meet 404."""
    if isinstance(case.body, dict) and case.body.get("model") is not None:
        case.body["model"] = "tiny"
    if "id" in case.path_parameters:
        begin = Request(f"{url}/api/conversations", b"{}", {"Content-Type": "application/json"})
        with urlopen(begin) as answer:
            case.path_parameters["id"] = json.load(answer)["id"]


def ask(operation, mode, n_cases, url):
    """Ask a route so often; returns how often each status was answered."""
    statuses = Counter()

    @settings(max_examples=n_cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def run(case):
        if mode is GenerationMode.POSITIVE:
            name_what_is_there(case, url)
        statuses[case.call_and_validate(base_url=url, checks=CHECKS, timeout=60).status_code] += 1

    run()
    return statuses
