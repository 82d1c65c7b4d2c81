"""From a recipe to a data folder: read and filter, compare, take out evaluation text, learn a tokenizer, tokenise.

Each step is done unit by unit by a pool of workers, and what a unit gave is on disk complete or not at all. The same
command after a kill goes on where it stopped; when all is done it does nothing.
"""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from camelid.data.decontaminate.evaluation_text import evaluation_text
from camelid.data.dedup.cluster import cluster_duplicates
from camelid.data.estimate import Estimate, check_memory, estimate
from camelid.data.filters.rules import Filters
from camelid.data.folder import DataFolder, read_json
from camelid.data.ids import REPEATED, count_repeated
from camelid.data.made_from import chosen, inputs, lists
from camelid.data.manifest import Manifest, read_manifest
from camelid.data.options import DataOptions
from camelid.data.reading.documents import read_documents
from camelid.data.reading.work_units import WorkUnit, work_units
from camelid.data.shards import FOLDER, Shard, shard_from_json
from camelid.data.source_stats import source_stats
from camelid.data.stage_stats import StageStats, merge_stats
from camelid.data.worker_tasks import Group, PrepareContext, encode_group, is_validation, keep_unit, read_unit
from camelid.data.workers import Workers
from camelid.errors import OptionError
from camelid.files import check_space, writing
from camelid.machine import processors
from camelid.pedigree import write_pedigree
from camelid.recipe import Recipe
from camelid.tokens.files.save import save_tokenizer
from camelid.tokens.tokenizer import Tokenizer
from camelid.tokens.training import TokenizerOptions, check_size, learn

Progress = Callable[[str, int, int | None], None]  # what is done, how much of it in bytes, how much in all if known

ALL = slice(None)
GROUP_BYTES = 256 * 2**20  # of text that one worker tokenises in one go


@dataclass(frozen=True)
class Prepared:
    """What came of it.

    Attributes:
        folder: of the data.
        manifest: None after a trial with too few documents for a tokenizer.
        stage_stats: of each stage, in order.
        already: everything was there before.
        notes: what a person should look at.
    """

    folder: Path
    manifest: Manifest | None
    stage_stats: Sequence[StageStats]
    already: bool = False
    notes: Sequence[str] = field(default=())


def prepare(
    recipe: Recipe,
    folder: Path,
    workers: int | None = None,
    *,
    free: int | None = None,
    overwrite: bool = False,
    planned: Callable[[Estimate], None] | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Make a data folder, or go on with one. The result does not depend on the number of workers.

    Args:
        recipe: its tables `data` and `tokenizer`.
        folder: `runs/NAME/data`.
        workers: processes; None: one for each processor.
        free: bytes of memory that there are; None: not looked at.
        overwrite: replace data that was made from something else.
        planned: called with the estimate, before anything is done.
        progress: called with what is done.

    Raises:
        OptionError: something in the recipe is wrong, or the folder was made from something else.
        MissingError: files or libraries that are not there.
        FormatError: a file cannot be read.
        ResourceError: memory or disk do not suffice, or a worker was killed.
    """
    data = DataFolder(folder)
    with writing(folder):
        if overwrite:
            data.clear()
        if data.is_finished():
            return already(recipe, folder)
        work = Preparation(recipe, folder, workers, progress)
        with data.locked():
            data.record_plan(work.plan())
            need = work.estimate()
            if free is not None:
                check_memory(work.options, work.tokenizer_options, min(work.workers, max(1, len(work.units))), free)
            check_space(folder, need.disk)
            if planned is not None:
                planned(need)
            return work.run()


def already(recipe: Recipe, folder: Path, quick: bool = False) -> Prepared:
    """What was made before, if it is what the recipe asks for; `quick` reads no file of documents.

    Raises:
        OptionError: it was made from something else.
        FormatError, VerifyError: plan.json or the manifest is damaged.
    """
    notes, manifest = DataFolder(folder).check_finished(recipe, quick), read_manifest(folder)
    stage_stats = [StageStats.from_json(stage) for stage in manifest.stages]
    notes += _notes(manifest, stage_stats, recipe.table("data", DataOptions).validation)
    return Prepared(folder, manifest, stage_stats, True, notes)


def try_out(recipe: Recipe, n_documents: int, progress: Progress | None = None) -> Prepared:
    """Run the first documents of each source, `n_documents` in all, through every stage, and keep nothing.

    Raises:
        OptionError, MissingError, FormatError: as `prepare`.
    """
    data = recipe.table("data", DataOptions)
    each = -(-n_documents // max(1, len(data.sources)))
    few = tuple(
        source.with_(max_documents=min(each, source.max_documents or each), weight=source.weight)
        for source in data.sources
    )
    with tempfile.TemporaryDirectory(prefix="camelid-") as name:
        work = Preparation(recipe, Path(name), 1, progress, data.with_(sources=few))
        return work.run(trial=True)


class Preparation:
    """One preparation; each method is a step, in order, and does only what is not done yet.

    Where a step takes a part, other processes may do other parts at the same time.
    """

    read_unit: Callable[[Any, WorkUnit], None] = staticmethod(read_unit)
    encode_group: Callable[[Any, Group], None] = staticmethod(encode_group)

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        workers: int | None,
        progress: Progress | None,
        options: DataOptions | None = None,
    ) -> None:
        self.recipe = recipe
        self.workers = processors() if workers is None else workers
        if self.workers < 1:
            raise OptionError(f"workers: must be at least 1, got {workers}")
        self.options = options or recipe.table("data", DataOptions)
        self.tokenizer_options = recipe.table("tokenizer", TokenizerOptions)
        self.folder = DataFolder(folder)
        base = recipe.path.parent
        Filters(self.options.rules, base)  # a wrong rule is said before anything is read,
        evaluation_text(self.options.decontaminate, base)  # and so are test items that are none
        if self.tokenizer_options.open is None:
            check_size(self.tokenizer_options)
        elif not self.folder.tokenizer.exists():
            open_tokenizer(self.tokenizer_options.open, base)
        self.units = work_units(self.options, base)
        self.context = PrepareContext(self.options, base, folder, recipe.seed)
        self._progress = progress or (lambda name, done, total: None)

    def plan(self) -> dict[str, Any]:
        """What the data is made from, as JSON."""
        base = self.recipe.path.parent
        return {**chosen(self.recipe, self.options), **lists(self.options, base), "inputs": inputs(self.units)}

    def estimate(self) -> Estimate:
        return estimate(self.units, self.options, self.tokenizer_options, self.workers)

    def run(self, trial: bool = False) -> Prepared:
        """All steps; a trial may end before the tokenizer."""
        self.folder.make()
        with Workers(self.workers) as pool:
            self.read(pool)
            self.compare()
            self.keep(pool)
            try:
                self.learn()
            except OptionError as error:
                if not trial:
                    raise
                return Prepared(self.folder.path, None, self._stage_stats(()), notes=[str(error)])
            self.encode(pool)
            return self.finish(pool)

    def read(self, pool: Workers, part: slice = ALL) -> None:
        """Read and filter the units of a part."""
        todo = [unit for unit in self.units[part] if not self._is_done(self.folder.read, unit)]
        self._each(pool, "reading", functools.partial(self.read_unit, self.context), todo, lambda unit: unit.n_bytes)

    def compare(self) -> None:
        """Cluster documents that are the same, when all units are read."""
        if not self.options.dedup.stages() or self.folder.decisions.exists():
            return
        if all(self._is_done(self.folder.kept, unit) for unit in self.units):
            return
        signatures = [self.folder.read / f"{unit.name}.npz" for unit in self.units]
        size = sum(file.stat().st_size for file in signatures if file.exists())
        self._progress("comparing", 0, size)
        cluster_duplicates(signatures, self.options.dedup, self.folder.decisions)
        self._progress("comparing", size, size)

    def keep(self, pool: Workers, part: slice = ALL) -> None:
        """Drop duplicates and evaluation text in the units of a part."""
        numbered = list(enumerate(self.units))[part]
        todo = [(number, unit) for number, unit in numbered if not self._is_done(self.folder.kept, unit)]
        self._each(pool, "keeping", functools.partial(keep_unit, self.context), todo, lambda pair: pair[1].n_bytes)

    def _check_left(self) -> None:
        stage_stats = self._stage_stats(())
        if not stage_stats[-1].documents_out:
            reasons = [warning for stats in stage_stats for warning in stats.warnings() if not stats.documents_out]
            raise OptionError(f"data: no document is left: {'; '.join(reasons) or 'the sources are empty'}")

    def learn(self) -> None:
        """Learn the tokenizer from the documents for training, or take the one that the recipe names.

        Raises:
            OptionError: no document is left, or too few.
        """
        self._check_left()
        if self.folder.tokenizer.exists():
            return
        if self.tokenizer_options.open is None:
            total = sum(group.n_bytes for group in self._groups())

            def learning(what: str, done: int, of: int | None) -> None:
                self._progress(f"tokenizer: {what}", done, total if what == "reading" else of)

            tokenizer = learn(self._texts(), self.tokenizer_options, learning)
        else:
            tokenizer = open_tokenizer(self.tokenizer_options.open, self.recipe.path.parent)
        beside = self.folder.work / "tokenizer"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        save_tokenizer(tokenizer, beside)
        beside.replace(self.folder.tokenizer)

    def _texts(self) -> Iterator[str]:
        for unit in self.units:
            for document in read_documents(self.folder.documents / f"{unit.name}.jsonl.gz"):
                if not is_validation(document, self.context):
                    yield document.text

    def _groups(self) -> list[Group]:
        """Units of which one worker makes the tokens, by source."""
        groups: list[Group] = []
        for unit in self.units:
            size = self._unit_stats(self.folder.kept, unit)[-1].bytes_out
            last = groups[-1] if groups and groups[-1].source == unit.source.name else None
            if last is not None and last.n_bytes + size <= GROUP_BYTES:
                groups[-1] = replace(last, units=(*last.units, unit.name), n_bytes=last.n_bytes + size)
            else:
                groups.append(Group(unit.source.name, last.number + 1 if last else 0, (unit.name,), size))
        return groups

    def encode(self, pool: Workers, part: slice = ALL) -> None:
        """Tokenise the documents of a part."""
        groups = self._groups()[part]
        todo = [group for group in groups if not (self.folder.encoded / f"{group.name}.json").exists()]
        for group in todo:  # what a kill left
            shutil.rmtree(self.folder.encoded / group.name, ignore_errors=True)
        task = functools.partial(self.encode_group, self.context)
        self._each(pool, "tokenising", task, todo, lambda group: group.n_bytes)

    def finish(self, pool: Workers) -> Prepared:
        """Give shards their names, write the manifest, and remove what was between."""
        groups = self._groups()
        stage_stats = self._stage_stats(groups)
        names = [unit.name for unit in self.units]
        count_repeated(
            [self.folder.kept / f"{name}.ids.npy" for name in names],
            [self.folder.documents / f"{name}.jsonl.gz" for name in names],
            self.folder.work,
            stage_stats[0],
        )
        shards = [shard for source in self.options.sources for shard in self._place(source.name, groups)]
        tokenizer = Tokenizer.open(self.folder.tokenizer)
        assert tokenizer.eos_id is not None
        manifest = Manifest(
            seed=self.recipe.seed,
            tokenizer=tokenizer.fingerprint(),
            vocab_size=tokenizer.vocab_size,
            bos_id=tokenizer.bos_id,
            eos_id=tokenizer.eos_id,
            sources=source_stats(self.options.sources, self.units, shards, pool),
            shards=shards,
            stages=[stats.as_json() for stats in stage_stats],
        )
        return self._finish(manifest, stage_stats)

    def _finish(self, manifest: Manifest, stage_stats: list[StageStats]) -> Prepared:
        counts = {name: sum(getattr(each, name) for each in manifest.shards) for name in ("tokens", "documents")}
        seconds = {stats.name: round(stats.seconds, 3) for stats in stage_stats}
        chosen = self.recipe.as_json()
        inputs = [self.recipe.path] if self.recipe.path.is_file() else []
        write_pedigree(self.folder.path, "prepare", inputs, chosen, {**counts, "seconds": seconds})
        manifest.write(self.folder.path)
        self.folder.remove_work()
        return Prepared(
            self.folder.path, manifest, stage_stats, notes=_notes(manifest, stage_stats, self.options.validation)
        )

    def _place(self, source: str, groups: list[Group]) -> list[Shard]:
        """Move the shards of a source where they belong, numbered through; again, if a kill came between."""
        placed = []
        for validation in (False, True):
            number = 0
            for group in groups:
                if group.source != source:
                    continue
                for about in read_json(self.folder.encoded / f"{group.name}.json")["shards"]:
                    shard = shard_from_json(about, self.folder.encoded)
                    if shard.validation == validation:
                        name = f"{source}{'.validation' if validation else ''}-{number:05d}"
                        self._move(self.folder.encoded / group.name / shard.name, self.folder.path / FOLDER / name)
                        placed.append(replace(shard, name=name))
                        number += 1
        return placed

    def _move(self, old: Path, new: Path) -> None:
        new.parent.mkdir(exist_ok=True)
        for suffix in (".docs.jsonl.gz", ".docs.npy", ".mask.npy", ".npy"):
            if old.with_name(old.name + suffix).exists():
                old.with_name(old.name + suffix).replace(new.with_name(new.name + suffix))

    def _each(
        self, pool: Workers, name: str, task: Callable[[Any], None], todo: Sequence[Any], size: Callable[[Any], int]
    ) -> None:
        total = sum(map(size, todo))
        done = 0
        for item, _ in pool.map(task, todo):
            done += size(item)
            self._progress(name, done, total)

    def _is_done(self, folder: Path, unit: WorkUnit) -> bool:
        return (folder / f"{unit.name}.json").exists()

    def _unit_stats(self, folder: Path, unit: WorkUnit) -> list[StageStats]:
        stages = read_json(folder / f"{unit.name}.json")["stages"]
        return [StageStats.from_json(stage) for stage in stages]

    def _stage_stats(self, groups: Sequence[Group]) -> list[StageStats]:
        """The statistics of all units, added up in their order."""
        parts: dict[str, list[StageStats]] = {}
        for folder in (self.folder.read, self.folder.kept):
            for unit in self.units:
                for stats in self._unit_stats(folder, unit):
                    if stats.name != "kept":
                        parts.setdefault(stats.name, []).append(stats)
        for group in groups:
            for stage in read_json(self.folder.encoded / f"{group.name}.json")["stages"]:
                parts.setdefault(stage["name"], []).append(StageStats.from_json(stage))
        return [merge_stats(name, stats) for name, stats in parts.items()]


def _notes(manifest: Manifest, stage_stats: Sequence[StageStats], validation: float) -> list[str]:
    notes = [f"{source.name}: no document is left for training" for source in manifest.sources if not source.documents]
    if validation and not any(shard.validation for shard in manifest.shards):
        notes.append("validation: no document was held out; there are few, so give a greater share")
    for stats in stage_stats:
        if REPEATED in stats.changed:
            count, name = stats.changed[REPEATED], stats.examples[REPEATED][0]["id"]
            notes.append(f"ids: {count} documents have an id that another of their source has, such as {name!r}")
    return notes


def open_tokenizer(name: str, base: Path) -> Tokenizer:
    """The tokenizer of a file or folder, relative to the recipe, or of a model by name.

    Raises:
        OptionError: it has no token that ends a text.
        MissingError, FormatError: there is none, or it cannot be read.
    """
    from camelid.hub.store import resolve
    from camelid.weights.open import open_weights

    path = base / Path(name).expanduser()
    if not path.exists():
        path = resolve(name)
    as_files = path.is_dir() or path.suffix in (".json", ".model")
    tokenizer = Tokenizer.open(path) if as_files else open_weights(path).tokenizer
    if tokenizer.eos_id is None:
        raise OptionError("tokenizer.open: this tokenizer has no token that ends a text; take another one")
    return tokenizer
