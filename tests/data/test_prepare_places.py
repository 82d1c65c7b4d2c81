"""Positions that cannot be written, full disks, and tokenizers that cannot be: one line, and nothing is lost."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import pytest

from camelid.data.prepare import prepare
from camelid.errors import CamelidError, ResourceError
from camelid.recipe import read_recipe
from tests.data.test_prepare import contents, recipe

__all__ = ["recipe"]  # a fixture


@pytest.mark.parametrize("change", ["open=nowhere/at-all", "open=books", "vocab_size=300"])
def test_a_wrong_tokenizer_is_said_before_anything_is_read(recipe, tmp_path, change):
    with pytest.raises(CamelidError, match=r"nowhere|books|vocab_size: 300 has no room .* of llama3; give 512 or more"):
        prepare(read_recipe(recipe, [f"tokenizer.{change}"]), tmp_path / "data", 1)
    assert not (tmp_path / "data" / "work").exists()


@pytest.mark.parametrize("out", ["file", "file/below", "read-only"])
def test_a_place_that_cannot_be_written_is_one_line(recipe, tmp_path, out, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    if out == "read-only":  # root may write anywhere, so the system's answer is given here

        def refuse(self, *args, **more):
            raise OSError(errno.EROFS, "Read-only file system", str(self))

        monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(ResourceError, match="cannot be written"):
        prepare(read_recipe(recipe), tmp_path / out, 1)


def test_a_full_disk_is_one_line_and_the_same_command_goes_on(recipe, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for most in (0, 3000, 9000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
        try:
            with pytest.raises(ResourceError, match="cannot be written"):
                prepare(read_recipe(recipe), tmp_path / "data", 1)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    prepare(read_recipe(recipe), tmp_path / "data", 1)
    prepare(read_recipe(recipe), tmp_path / "other", 1)
    assert contents(tmp_path / "data") == contents(tmp_path / "other")
