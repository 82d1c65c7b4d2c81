"""Documents of one source that have the same id are counted exactly, and said."""

from __future__ import annotations

import json
import random

import pytest

from camelid.data.ids import REPEATED
from camelid.data.prepare import already, prepare
from camelid.recipe import read_recipe


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_repeated_ids_are_counted_and_named(tmp_path, workers):
    draw, expected, first = random.Random(workers), 0, None
    seen = set()
    for name in ("a", "b"):
        lines = []
        for _ in range(200):
            id = f"d{draw.randrange(300)}"
            expected += id in seen
            first = first or (id if id in seen else None)
            seen.add(id)
            lines.append(json.dumps({"id": id, "text": " ".join(draw.choices("abcdefghijklmnop", k=80))}) + "\n")
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    recipe = tmp_path / "r.toml"
    source = 'kind = "jsonl"\npath = "*.jsonl"\nlicence = "CC0-1.0"\n'
    other = 'kind = "jsonl"\npath = "a.jsonl"\nlicence = "CC0-1.0"\nmax_documents = 1\n'  # its ids are its own
    recipe.write_text(
        f'name = "r"\n[data]\nvalidation = 0.1\n[data.dedup]\nexact = false\nminhash = false\n[[data.sources]]\n'
        f'name = "m"\n{source}[[data.sources]]\nname = "other"\n{other}'
        '[tokenizer]\ntrain = "llama3"\nvocab_size = 520\n'
    )
    made = prepare(read_recipe(recipe), tmp_path / "data", workers)
    assert made.stage_stats[0].changed[REPEATED] == expected
    assert made.stage_stats[0].documents_out == 401
    (note,) = [note for note in made.notes if note.startswith("ids:")]
    assert note == f"ids: {expected} documents have an id that another of their source has, such as {first!r}"
    assert note in already(read_recipe(recipe), tmp_path / "data").notes
