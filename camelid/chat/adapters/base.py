"""Which base an adapter is asked beside, by a name or by what its own files say."""

from __future__ import annotations

from pathlib import Path

from camelid.errors import CamelidError, MissingError
from camelid.hub.store import resolve
from camelid.weights.adapted import check_base
from camelid.weights.lora import Adapter, base_path, is_adapter, open_adapter
from camelid.weights.open import open_weights
from camelid.weights.weights import Weights


def open_with_base(adapter: str | Path, base: str | Path | None = None) -> tuple[Adapter, Weights]:
    """An adapter and the base it belongs to.

    Args:
        adapter: its folder, or a stage of a run whose newest checkpoint is one.
        base: path or name; else what the adapter's files name, as a path or as a name of the catalog.

    Raises:
        MissingError: one of them is not there. OptionError: they do not belong together.
        FormatError, UnsupportedError: one is damaged, or of a kind camelid does not read.
    """
    opened = open_adapter(resolve(adapter))
    weights = open_weights(_base_of(opened) if base is None else resolve(base))
    check_base(opened, weights)
    return opened, weights


def names_adapter(model: str | Path | None) -> bool:
    """Whether what a person calls a model is an adapter's folder."""
    try:
        return model is not None and is_adapter(resolve(model))
    except CamelidError:  # whoever opens it says what is wrong
        return False


def _base_of(adapter: Adapter) -> Path:
    try:
        return base_path(adapter)
    except MissingError as error:
        names = [adapter.base.name] if adapter.base is not None else []
        for name in [*names, adapter.base_name]:
            try:
                return resolve(name)
            except (CamelidError, OSError):
                continue
        raise error from None
