"""Stages of a model's training, one file each; its name is the recipe's table and the folder in a run's.

A file has options, an `Objective`, and says `STAGE = ` which class that is. No torch at import.
"""

from __future__ import annotations

import importlib
from typing import Any

from camelid.errors import OptionError, one_of
from camelid.recipe import stages
from camelid.train.objective import Objective

FIRST = "pretrain"


def load_stage(name: str = FIRST) -> type[Objective[Any]]:
    """The stage of a name.

    Raises:
        OptionError: the stage is unknown.
    """
    if name not in stages():
        raise OptionError(f"{name}: no such stage of training; {one_of(name, stages())}")
    stage: type[Objective[Any]] = importlib.import_module(f"{__name__}.{name}").STAGE
    return stage
