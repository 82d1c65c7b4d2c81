"""A recipe: one TOML file that says how a model comes to be, a table for each part of its life."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from camelid.errors import FormatError, MissingError, OptionError, one_of
from camelid.options import Options
from camelid.parsing import MAX_DEPTH, MAX_TOML, parse_toml

TABLES = ("data", "tokenizer", "model")  # and one for each stage of training
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

Kind = TypeVar("Kind", bound=Options)


@dataclass(frozen=True)
class Recipe:
    """What a file says, with what was changed on the command line.

    Attributes:
        path: the file; paths inside a recipe are relative to its folder.
        name: names the run: `runs/NAME`.
        seed: of everything random.
        tables: table → its keys as TOML gave them.
        base: the model that its first stage begins from: a name, a folder or a file; None for a new one.
        stages: of the training, in order, as ("pretrain", "sft", "reward-safety", "ppo", "ppo-2").
    """

    path: Path
    name: str
    seed: int
    tables: Mapping[str, Mapping[str, Any]]
    base: str | None = None
    stages: tuple[str, ...] = ("pretrain",)

    def table(self, name: str, kind: type[Kind]) -> Kind:
        """The options of one table; defaults if the recipe has no such table.

        Raises:
            OptionError: an unknown key or a value that its field refuses.
        """
        try:
            return kind(**self.tables.get(name, {}))
        except OptionError as error:
            raise OptionError(f"{self.path}: {name}.{error}") from None

    def stage_table(self, name: str, kind: type[Kind]) -> Kind:
        """The options of one stage: its own table over that of its kind, so that [ppo-2] says only what differs
        from [ppo].

        Raises:
            OptionError: an unknown key or a value that its field refuses.
        """
        try:
            return kind(**{**self.tables.get(stage_kind(name), {}), **self.tables.get(name, {})})
        except OptionError as error:
            raise OptionError(f"{self.path}: {name}.{error}") from None

    def chosen(self, stage: str | None) -> tuple[str, ...]:
        """All stages, or the one named.

        Raises:
            OptionError: there is no such stage.
        """
        if stage is not None and stage not in self.stages:
            raise OptionError(f"--stage: {self.path} has no {stage!r}; {one_of(stage, self.stages)}")
        return self.stages if stage is None else (stage,)

    def as_json(self) -> dict[str, Any]:
        """Everything but the path; what an older recipe could not say is left out where it says nothing."""
        own: dict[str, Any] = {"name": self.name, "seed": self.seed}
        own |= {} if self.base is None else {"base": self.base}
        own |= {} if self.stages == ("pretrain",) else {"stages": list(self.stages)}
        return {**own, **{name: dict(table) for name, table in self.tables.items()}}


def read_recipe(path: Path | str, changes: Sequence[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        path: a TOML file, or the name of one that comes with camelid, as `tiny`.
        changes: `table.key=value`, the value in TOML's words or a plain word; each replaces what the file says.

    Raises:
        MissingError: there is no such file.
        FormatError: it is not TOML.
        OptionError: an unknown table or key, or a change that cannot be read.
    """
    path = find_recipe(path)
    try:
        values = _read_toml(path)
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: not a readable TOML file ({error}); fix it") from None
    for change in changes:
        _apply(values, change)
    return _check(path, values)


def _read_toml(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        text = file.read(4 * MAX_TOML + 1)  # a character has at most four bytes
    return parse_toml(text.decode("utf-8-sig").replace("\r\n", "\n"))


def find_recipe(path: Path | str) -> Path:
    """The file that a path, or the bare name of a recipe that comes with camelid, means.

    Raises:
        MissingError: neither a file nor such a name.
    """
    try:
        if Path(path).is_file():
            return Path(path)
    except OSError as error:
        raise MissingError(f"{str(path)[:200]}: cannot be read ({error.strerror}); check the path") from None
    named = shipped_recipes()
    if str(path) in named:
        return named[str(path)]
    hint = one_of(str(path), named) if named else "none came with camelid"
    raise MissingError(f"{path}: no such recipe; give the path of a .toml file, or a name: {hint}")


def stage_kind(name: str) -> str:
    """What a stage does: `reward` of reward-safety, `ppo` of ppo-2. The rest tells stages of one kind apart."""
    return name.partition("-")[0]


def stage_kinds() -> tuple[str, ...]:
    """The kinds of stages that there are: each is a file of its name in `train/stages`."""
    folder = Path(__file__).resolve().parent / "train" / "stages"
    return tuple(sorted(path.stem for path in folder.glob("[a-z]*.py")))


def shipped_recipes() -> dict[str, Path]:
    """Name → file of every recipe that comes with camelid: beside the code in a wheel, `recipes/` in a checkout."""
    package = Path(__file__).resolve().parent
    installed = package / "recipes"
    folder = installed if installed.is_dir() else package.parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def _check(path: Path, values: dict[str, Any]) -> Recipe:
    name, seed = values.pop("name", path.stem), values.pop("seed", 0)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise OptionError(f"{path}: name: must be letters, digits, '.', '_' and '-', got {name!r}")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        raise OptionError(f"{path}: seed: must be a whole number from 0 to 2^63 - 1, got {seed!r}")
    base, named = values.pop("base", None), values.pop("stages", None)
    if base is not None and (not isinstance(base, str) or not base):
        raise OptionError(f"{path}: base: must be a model's name, folder or file, got {base!r}")
    for table, content in values.items():
        if table not in TABLES and stage_kind(table) not in stage_kinds():
            known = [*TABLES, *stage_kinds(), "name", "seed", "base", "stages"]
            raise OptionError(f"{path}: {table}: no such table; {one_of(table, known)}")
        if not isinstance(content, dict):
            raise OptionError(f"{path}: {table}: must be a table, [{table}], got {str(content)[:60]}")
    return Recipe(path, name, seed, values, base, _stages(path, values, named))


def _stages(path: Path, tables: Mapping[str, Any], named: Any) -> tuple[str, ...]:
    """The stages in order: as `stages` names them, else every stage that has a table, else pretraining. A kind whose
    tables all have a further name (reward: [reward-helpfulness], [reward-safety]) means all of these."""
    own = [table for table in tables if table not in TABLES]
    further = [table for table in own if table != stage_kind(table)]
    if named is None:
        bases = {stage_kind(table) for table in further}
        return tuple(table for table in own if table not in bases) or ("pretrain",)
    if not isinstance(named, list) or not named or not all(isinstance(name, str) for name in named):
        raise OptionError(f'{path}: stages: must be a list of names, as ["pretrain", "sft"], got {named!r}')
    found: list[str] = []
    for name in named:
        if stage_kind(name) not in stage_kinds() or not _NAME.fullmatch(name):
            raise OptionError(f"{path}: stages: no stage {name!r}; {one_of(name, stage_kinds())}")
        parts = [table for table in further if stage_kind(table) == name and table not in named]
        found += parts or [name]
    twice = next((name for name in found if found.count(name) > 1), None)
    if twice is not None:
        raise OptionError(f"{path}: stages: {twice} stands twice; call the second one {twice}-2")
    return tuple(found)


def _apply(values: dict[str, Any], change: str) -> None:
    """Put `a.b=c` where it belongs; a list of tables is reached by number: `data.sources.0.weight=2`."""
    key, equals, text = change.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts) or len(parts) > MAX_DEPTH:
        raise OptionError(f"--set {change[:80]}: must be TABLE.KEY=VALUE, for example pretrain.steps=100")
    at: Any = values
    for number, part in enumerate(parts[:-1]):
        try:
            at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
        except (ValueError, IndexError):
            raise OptionError(f"--set {change}: {'.'.join(parts[:number])} has no number {part}") from None
        if not isinstance(at, dict | list):
            raise OptionError(f"--set {change}: {'.'.join(parts[: number + 1])} is not a table")
    if isinstance(at, list):
        raise OptionError(
            f"--set {change}: {key.rpartition('.')[0]} is a list of {len(at)}; give one's number, from 0, and its key"
        )
    at[parts[-1]] = _value(text.strip())


def _value(text: str) -> Any:
    """A value in TOML's words; anything else is a string."""
    try:
        return parse_toml(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    except ValueError as error:
        raise OptionError(f"--set: a value that cannot be read ({error})") from None
