"""What data is made from, as plan.json keeps it, and whether finished data is what a recipe asks for.

Finished data is complete and hashed, so it needs its documents' files no more: they may be moved, touched or deleted.
Where they are there and differ, somebody may expect them to count, so a note says so.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from camelid.data.chats.options import ChatDataOptions
from camelid.data.manifest import Manifest
from camelid.data.options import DataOptions
from camelid.data.reading.files import FileOptions
from camelid.data.reading.options import SourceOptions
from camelid.data.reading.work_units import WorkUnit, files_of, work_units
from camelid.data.source_stats import files_on_record, hash_file
from camelid.errors import CamelidError, FormatError, MissingError, OptionError
from camelid.pedigree import describe_file
from camelid.recipe import Recipe
from camelid.tokens.training import TokenizerOptions

_COMPARED = ("seed", "data", "tokenizer", "chats")


def chosen(recipe: Recipe, data: DataOptions | None = None) -> dict[str, Any]:
    """What a recipe says about its data, as JSON, with every default.

    Args:
        data: instead of the recipe's table.
    """
    data = data or recipe.table("data", DataOptions)
    tokenizer = recipe.table("tokenizer", TokenizerOptions)
    return {"seed": recipe.seed, "data": data.model_dump(mode="json"), "tokenizer": tokenizer.model_dump(mode="json")}


def lists(data: DataOptions, base: Path) -> dict[str, list[dict[str, Any]]]:
    """Name, bytes and SHA-256 of the files that rules and decontamination read; `base` is the recipe's folder."""
    tests = [describe_file(base / Path(file.path)) for file in data.decontaminate.against]
    blocked = [describe_file(base / Path(path)) for path in data.rules.get("url", {}).get("files", ())]
    return ({"tests": tests} if tests else {}) | ({"lists": blocked} if blocked else {})


def inputs(units: Sequence[WorkUnit]) -> dict[str, dict[str, Any]]:
    """Source → how many files it has, and a hash of their names, sizes and times: what changes when they do."""
    states: dict[str, dict[str, Any]] = {}
    for name, of_source in itertools.groupby(units, lambda unit: unit.source.name):
        state = []
        for path, label in files_of(list(of_source)).items():
            about = Path(path).stat() if Path(path).is_file() else None
            state.append([label, about.st_size, about.st_mtime_ns] if about else [label, 0, 0])
        digest = hashlib.sha256(json.dumps(sorted(state)).encode()).hexdigest()
        states[name] = {"files": len(state), "bytes": sum(size for _, size, _ in state), "state": digest}
    return states


def check_finished(
    now: Mapping[str, Any],
    data: DataOptions,
    base: Path,
    then: Mapping[str, Any],
    manifest: Manifest,
    quick: bool = False,
) -> list[str]:
    """Refuse finished data that a recipe would have made in another way.

    Args:
        now: what it would be made from, as `chosen` says it.
        data: the options of now.
        base: the recipe's folder.
        then: what plan.json says.
        manifest: of the data.
        quick: read no file of documents; those that changed are noted, not refused, unless the recipe names others.

    Returns:
        What a person should know: files that are gone or have changed.

    Raises:
        OptionError: tells every difference.
        FormatError: plan.json does not say what it should.
    """
    try:
        changed, before = differences(then, now), _paths(then)
    except (KeyError, TypeError, AttributeError) as error:
        raise FormatError(f"not as expected ({error!r})") from None
    notes = _changed_lists(then, data, base)
    for source, record in zip(data.sources, manifest.sources, strict=False):
        moved = before.get(source.name) != _paths(now).get(source.name)
        if changed and not moved:
            continue
        note = _changed_files(source, record.files, then, base, quick and not moved)
        if note is not None:
            (changed if moved else notes).append(note)
    refused = changed or [note for note in notes if not quick and "have changed" in note]
    if refused:
        raise OptionError("; ".join(refused))
    return notes


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """`data.validation 0.01 → 0.02` for each value that differs; where files lie is no difference."""
    wanted = json.loads(json.dumps({name: now[name] for name in _COMPARED if name in now}))
    return _differences(_without_paths(_completed(then)), _without_paths(wanted))


def _changed_lists(then: Mapping[str, Any], data: DataOptions, base: Path) -> list[str]:
    """A note where the files of rules or tests are others than they were; those that are gone are not missed."""
    try:
        now = lists(data, base)
    except OSError:
        return []
    return [
        f"the files of {words} have changed since the data was made"
        for name, words in (("tests", "data.decontaminate"), ("lists", "data.rules.url"))
        if name in then and name in now and then[name] != now[name]
    ]


def _changed_files(
    source: SourceOptions, on_record: Sequence[Mapping[str, Any]], then: Mapping[str, Any], base: Path, quick: bool
) -> str | None:
    """A note where a source's files are gone, or are others than on record; None if all is as it was."""
    if quick and not _is_local(source):
        return None
    try:
        units = work_units(DataOptions(sources=(source,)), base)
    except MissingError:
        return f"source {source.name}: its files are not there any more; the data made from them is"
    except CamelidError as error:
        return f"source {source.name}: the files have changed since the data was made: {error}"
    was, now = then.get("inputs", {}).get(source.name, {}), inputs(units).get(source.name, {})
    if was.get("state") == now.get("state"):
        return None
    same = was.get("files") == now.get("files") and was.get("bytes") == now.get("bytes")
    if same and not quick:
        labels = files_of(units)
        hashes = {path: hash_file(path) for path in labels if Path(path).is_file()}
        same = [dict(file) for file in on_record] == files_on_record(labels, hashes)
    return None if same else f"the files of source {source.name} have changed since the data was made"


def _is_local(source: SourceOptions) -> bool:
    """Whether looking for its files asks no network."""
    return isinstance(source, FileOptions) or source.kind in ("corpus", "docstrings")


def _completed(then: Mapping[str, Any]) -> dict[str, Any]:
    """A plan with the defaults of options that came later."""
    kinds = {"data": ChatDataOptions if "chats" in then else DataOptions, "tokenizer": TokenizerOptions}
    plan = {name: value for name, value in then.items() if name in _COMPARED}
    for name, kind in kinds.items():
        try:
            plan[name] = kind(**plan[name]).model_dump(mode="json")
        except (CamelidError, KeyError, TypeError):  # of options that are no more; they will differ
            continue
    return plan


def _paths(plan: Mapping[str, Any]) -> dict[str, Any]:
    """Source → what its table says about where its files lie."""
    return {source["name"]: source.get("path") for source in plan["data"]["sources"]}


def _without_paths(plan: dict[str, Any]) -> dict[str, Any]:
    """A plan without the places of files; what is in them is compared by itself."""
    data = plan.get("data")
    if isinstance(data, dict):
        for source in data.get("sources", ()):
            if isinstance(source.get("path"), list):
                del source["path"]
        for file in data.get("decontaminate", {}).get("against", ()):
            file.pop("path", None)
    return plan


def _differences(old: Any, new: Any, where: str = "") -> list[str]:
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        old, new = dict(enumerate(old)), dict(enumerate(new))
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [] if old == new else [f"{where} {_short(old)} → {_short(new)}"]
    changes = []
    for key in dict.fromkeys([*old, *new]):
        changes += _differences(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
    return changes


def _short(value: Any) -> str:
    text = "not there" if value is None else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"
