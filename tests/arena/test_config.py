"""arena.toml, and what is wrong with some of them."""

from __future__ import annotations

import pytest

from camelid.arena.config import read_config
from camelid.errors import FormatError, MissingError, OptionError

WHOLE = """
name = "Ours"
apart = [["one", "two"]]
[limits]
turns = 9
[pace]
characters = 4
[engine]
context = 512
[[models]]
name = "one"
model = "smollm2:135m-instruct"
weight = 2
boosted = true
sampling = { temperature = 0.7, max_tokens = 50 }
[[models]]
name = "two"
url = "https://example.org/v1/"
key_env = "KEY"
targets = ["one"]
sampling = { anything = [1] }
outage = true
"""


def written(tmp_path, text):
    path = tmp_path / "arena.toml"
    path.write_text(text)
    return path


def test_a_whole_one(tmp_path):
    config = read_config(written(tmp_path, WHOLE))
    one, two = config.models
    assert (config.name, config.limits.turns, config.pace.characters, config.engine.context) == ("Ours", 9, 4, 512)
    assert (one.is_endpoint, two.is_endpoint, two.url, two.source) == (False, True, "https://example.org/v1", "two")
    rules = config.rules(frozenset({"one"}))
    assert (rules.weights, set(rules.outage), rules.boosted) == ({"one": 2, "two": 1}, {"one", "two"}, ["one"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "there are none"),
        ("models = 3", r"\[\[models\]\]"),
        ("[[models]]\nname = 'a'\n[[models]]\nname = 'a'", "two are called a"),
        ("[[models]]\nname = 'a'\nlicense = 'MIT'", "did you mean 'licence'"),
        ("[[models]]\nmodel = 'a'", "models number 1: name"),
        ("[[models]]\nname = 'a'\nurl = 'ftp://x'", "wants http"),
        ("[[models]]\nname = 'a'\nurl = 'https://user:key@host/v1'", "no key in it"),
        ("[[models]]\nname = 'a'\nlink = 'javascript:alert(1)'", "link"),
        ("[[models]]\nname = 'a'\ntargets = ['b']", "'b' is no model here"),
        ("[[models]]\nname = 'a'\nsampling = { temperature = -1 }", "temperature"),
        ("[[models]]\nname = 'a'\nsampling = { seed = 1 }", "the arena's own"),
        ("[[models]]\nname = 'a'\nweight = -1", "weight"),
        ("[pace]\ntick = 0\n[[models]]\nname = 'a'", "pace: tick"),
        ("colour = 'red'\n[[models]]\nname = 'a'", "colour"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text, told):
    path = written(tmp_path, text)
    with pytest.raises(OptionError, match=told) as error:
        read_config(path)
    assert str(path) in str(error.value)


def test_no_file_and_no_toml(tmp_path):
    with pytest.raises(MissingError, match="no such file"):
        read_config(tmp_path / "none.toml")
    with pytest.raises(FormatError, match="TOML"):
        read_config(written(tmp_path, "= ="))


def test_an_arena_to_begin_with():
    arena = read_config(None)
    assert len({model.name for model in arena.models}) == 2
    assert len({model.sampling["temperature"] for model in arena.models}) == 2
