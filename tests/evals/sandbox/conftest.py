"""The sandbox's own tests need a machine that lets programs be held."""

from __future__ import annotations

import pytest

from tests.evals.sandboxed import skip_without_sandbox


@pytest.fixture(scope="module", autouse=True)
def held() -> None:
    """Skip where the strict sandbox refuses."""
    skip_without_sandbox()
