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
    """

    path: Path
    name: str
    seed: int
    tables: Mapping[str, Mapping[str, Any]]

    def table(self, name: str, kind: type[Kind]) -> Kind:
        """The options of one table; defaults if the recipe has no such table.

        Raises:
            OptionError: an unknown key or a value that its field refuses.
        """
        try:
            return kind(**self.tables.get(name, {}))
        except OptionError as error:
            raise OptionError(f"{self.path}: {name}.{error}") from None

    def as_json(self) -> dict[str, Any]:
        """Everything but the path."""
        return {"name": self.name, "seed": self.seed, **{name: dict(table) for name, table in self.tables.items()}}


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
        raise FormatError(f"{path}: not a readable TOML file ({error}); correct it") from None
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


def stages() -> tuple[str, ...]:
    """Names of the stages of training that there are: each is a file of its name in `train/stages`, a recipe's table,
    and a folder in a run's."""
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
    for table, content in values.items():
        if table not in (known := (*TABLES, *stages())):
            raise OptionError(f"{path}: {table}: no such table; {one_of(table, [*known, 'name', 'seed'])}")
        if not isinstance(content, dict):
            raise OptionError(f"{path}: {table}: must be a table, [{table}], got {str(content)[:60]}")
    return Recipe(path, name, seed, values)


def _apply(values: dict[str, Any], change: str) -> None:
    """Put `a.b=c` where it belongs; a list of tables is reached by number: `data.sources.0.weight=2`."""
    key, equals, text = change.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts) or len(parts) > MAX_DEPTH:
        raise OptionError(f"--set {change[:80]}: wants TABLE.KEY=VALUE, for example pretrain.steps=100")
    at: Any = values
    for number, part in enumerate(parts[:-1]):
        try:
            at = at[int(part)] if isinstance(at, list) else at.setdefault(part, {})
        except (ValueError, IndexError):
            raise OptionError(f"--set {change}: {'.'.join(parts[:number])} has no number {part}") from None
        if not isinstance(at, dict | list):
            raise OptionError(f"--set {change}: {'.'.join(parts[: number + 1])} is no table")
    if isinstance(at, list):
        raise OptionError(
            f"--set {change}: {key.rpartition('.')[0]} is a list of {len(at)}; say which, counted from 0, and its key"
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
