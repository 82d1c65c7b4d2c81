"""What each package offers is what docs/names.md promises, and it is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

NAMES = Path(__file__).parent.parent / "docs" / "names.md"
PROMISED = {
    package: set(re.findall(r"`(\w+)`", names))
    for package, names in re.findall(r"^\| `(camelid[\w.]*)` \| (.*) \|$", NAMES.read_text(encoding="utf-8"), re.M)
}


def test_the_table_is_read():
    assert {"camelid", "camelid.tokens", "camelid.model", "camelid.weights", "camelid.engine", "camelid.chat"} == set(
        PROMISED
    )


@pytest.mark.parametrize("package", PROMISED)
def test_names_are_as_promised(package):
    module = importlib.import_module(package)
    assert set(module.__all__) == PROMISED[package]
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("package", PROMISED)
def test_an_unknown_name_is_an_attribute_error(package):
    with pytest.raises(AttributeError, match="no_such_name"):
        importlib.import_module(package).no_such_name  # noqa: B018
