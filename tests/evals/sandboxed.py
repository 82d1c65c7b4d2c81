"""Whether programs can be held strictly here: not in every container, as where user namespaces are forbidden."""

from __future__ import annotations

from functools import cache

import pytest

from camelid.errors import CamelidError


@cache
def _refusal() -> str | None:
    from camelid.evals.sandbox import Sandbox

    try:
        with Sandbox(workers=1):
            return None
    except CamelidError as error:
        return str(error)


def skip_without_sandbox() -> None:
    """Skip this test, with the reason, where the strict sandbox refuses."""
    if reason := _refusal():
        pytest.skip(reason)
