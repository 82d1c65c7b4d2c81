"""What each package offers and what steers it from outside is what docs/names.md says, and it is there."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NAMES = ROOT / "docs" / "names.md"
PROMISED = {
    package: set(re.findall(r"`(\w+)`", names))
    for package, names in re.findall(r"^\| `(camelid[\w.]*)` \| (.*) \|$", NAMES.read_text(encoding="utf-8"), re.M)
}


def test_the_table_is_read():
    assert {
        "camelid",
        "camelid.tokens",
        "camelid.model",
        "camelid.weights",
        "camelid.engine",
        "camelid.chat",
        "camelid.evals",
    } == set(PROMISED)


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


def test_the_environment_is_as_promised():
    page = NAMES.read_text(encoding="utf-8").partition("## Environment")[2]
    rows = re.findall(r"^\| (`[A-Z].*?) \|", page, re.M)
    promised = {name for row in rows for name in re.findall(r"`([A-Z_]+)`", row)}
    code = "\n".join(path.read_text(encoding="utf-8") for path in ROOT.glob("camelid/**/*.py"))
    read = set(re.findall(r'environ(?:\.get\(|\[)\s*"(\w+)"', code))
    assert promised == read | {"HF_TOKEN"}  # that one is read by huggingface_hub
