"""Recipes: strict, changed from the command line, and every mistake named with its place."""

from __future__ import annotations

import pytest
from pydantic import Field

from camelid.errors import FormatError, MissingError, OptionError
from camelid.options import Options
from camelid.recipe import read_recipe, shipped_recipes


class Pretrain(Options):
    """Options that a test needs."""

    steps: int = Field(10, ge=1)
    lr: float = 1e-3
    schedule: str = "cosine"


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text("seed = 3\n[[data.sources]]\nname = 'a'\n[[data.sources]]\nname = 'b'\n[pretrain]\nsteps = 20\n")
    return file


def test_a_recipe_is_named_after_its_file_and_gives_options(path):
    recipe = read_recipe(path)
    assert (recipe.name, recipe.seed) == ("small", 3)
    assert recipe.table("pretrain", Pretrain) == Pretrain(steps=20)
    assert recipe.table("model", Options) == Options()


def test_changes_replace_what_the_file_says(path):
    changes = ["pretrain.lr=0.5", "pretrain.schedule=wsd", "data.sources.1.weight=2", "name=other", "model.dim=64"]
    recipe = read_recipe(path, changes)
    assert recipe.table("pretrain", Pretrain) == Pretrain(steps=20, lr=0.5, schedule="wsd")
    assert recipe.as_json()["data"] == {"sources": [{"name": "a"}, {"name": "b", "weight": 2}]}
    assert (recipe.name, recipe.tables["model"]["dim"]) == ("other", 64)


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ("pretrain.steps", "TABLE.KEY=VALUE"),
        ("pretrain..steps=1", "TABLE.KEY=VALUE"),
        ("pretrian.steps=1", "did you mean 'pretrain'"),
        ("seed=-1", "seed: must be"),
        ("seed=true", "seed: must be"),
        ("name=a/b", "name: must be"),
        ("data.sources.7.weight=1", "data.sources has no number 7"),
        ("data.sources.weight=1", "data.sources is a list of 2; give one's number"),
        ("data.sources=1.5", None),
        ("data=1", "data: must be a table"),
        ("pretrain.steps.x=1", "pretrain.steps is not a table"),
        ("data.sources.0=1", "data.sources is a list of 2"),
        ("data.sources.a.weight=1", "has no number a"),
    ],
)
def test_a_change_that_cannot_be_is_named(path, change, part):
    if part is None:
        assert read_recipe(path, [change]).tables["data"] == {"sources": 1.5}
        return
    with pytest.raises(OptionError) as caught:
        read_recipe(path, [change])
    assert part in str(caught.value).replace("\n", " ")


def test_an_unknown_key_is_named_with_file_and_table(path):
    with pytest.raises(OptionError, match=r"small.toml: pretrain.stesp: no such option; did you mean 'steps'"):
        read_recipe(path, ["pretrain.stesp=1"]).table("pretrain", Pretrain)
    with pytest.raises(OptionError, match=r"small.toml: pretrain.steps: must be"):
        read_recipe(path, ["pretrain.steps=0"]).table("pretrain", Pretrain)


def test_a_file_that_is_not_there_or_not_toml(tmp_path):
    with pytest.raises(MissingError, match="no such recipe"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("a = = 1")
    with pytest.raises(FormatError, match=r"bad.toml: not a readable TOML"):
        read_recipe(tmp_path / "bad.toml")


def test_recipes_that_come_with_camelid_are_found_by_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert {"tiny", "stories", "llama2-7b", "llama3-8b"} <= set(shipped_recipes())
    assert read_recipe("tiny").name == "tiny"
    with pytest.raises(MissingError, match=r"tniy: no such recipe; .* did you mean 'tiny'"):
        read_recipe("tniy")
    (tmp_path / "tiny").write_text("name = 'mine'")
    assert read_recipe("tiny").name == "mine"


@pytest.mark.parametrize("name", shipped_recipes())
def test_a_recipe_that_comes_with_camelid_is_named_after_its_file(name):
    assert read_recipe(name).name == name


def written(tmp_path, text):
    path = tmp_path / "life.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "stages"),
    [
        ("", ("pretrain",)),
        ("[model]\ndim = 8", ("pretrain",)),
        ("[pretrain]", ("pretrain",)),
        ('stages = ["pretrain"]', ("pretrain",)),
        ('stages = ["pretrain"]\n[pretrain-more]', ("pretrain-more",)),
        ('stages = ["pretrain", "pretrain-2"]\n[pretrain-2]\n[pretrain-more]', ("pretrain-more", "pretrain-2")),
        ("[pretrain]\n[pretrain-a]\n[pretrain-b]", ("pretrain-a", "pretrain-b")),
    ],
)
def test_stages_in_order(tmp_path, text, stages):
    assert read_recipe(written(tmp_path, text)).stages == stages


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stages = 3", "must be a list of names"),
        ("stages = []", "must be a list of names"),
        ('stages = ["pretrian"]', "no stage 'pretrian'; "),
        ('stages = ["pretrain", "pretrain"]', "pretrain stands twice; call the second one pretrain-2"),
        ("base = 1", "base: must be a model's name"),
        ('base = ""', "base: must be a model's name"),
    ],
)
def test_stages_that_are_none(tmp_path, text, message):
    with pytest.raises(OptionError, match=message):
        read_recipe(written(tmp_path, text))


def test_a_further_stage_says_only_what_differs(tmp_path):
    recipe = read_recipe(written(tmp_path, "[pretrain]\nlr = 0.5\nsteps = 9000\n[pretrain-2]\nlr = 0.25"))
    assert recipe.stage_table("pretrain-2", Pretrain).lr == 0.25
    assert recipe.stage_table("pretrain-2", Pretrain).steps == 9000
    assert recipe.stage_table("pretrain", Pretrain).lr == 0.5
