"""Where documents come from: one file a kind, found by its name.

Each has a class `Source` of options, and the functions `file_parts` (what there is to read) and `read` (its documents).
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from camelid.data.reading.options import SourceOptions
from camelid.errors import OptionError, one_of


def kinds() -> list[str]:
    """Names of the kinds: the files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def source_kind(kind: str) -> ModuleType:
    """The module that reads a kind of source.

    Raises:
        OptionError: there is no such kind.
    """
    if kind not in kinds():
        raise OptionError(f"kind: unknown kind of source {kind!r}; {one_of(kind, kinds())}")
    return importlib.import_module(f"{__name__}.{kind}")


def source_options(table: Mapping[str, Any]) -> SourceOptions:
    """The options of one `[[data.sources]]`, strict for its kind.

    Raises:
        OptionError: no or an unknown kind, an unknown key, or a value that its field refuses.
    """
    if "kind" not in table:
        raise OptionError(f"kind: say what kind of source this is; {one_of('', kinds())}")
    options: SourceOptions = source_kind(str(table["kind"])).Source(**table)
    return options
