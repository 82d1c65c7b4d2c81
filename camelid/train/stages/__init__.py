"""Kinds of stages of a model's training, one file each: a stage's name is its kind (`ppo`) or begins with it (`ppo-2`).
It is the recipe's table, and the folder in a run's.

A file has options, an `Objective`, and says `STAGE = ` which class that is. No torch at import.
"""

from __future__ import annotations

import importlib
from typing import Any

from camelid.errors import OptionError, one_of
from camelid.recipe import stage_kind, stage_kinds
from camelid.train.objective import Objective

FIRST = "pretrain"


def load_stage(name: str = FIRST) -> type[Objective[Any]]:
    """What a stage of this name learns: that of ppo-2 is in `ppo.py`.

    Raises:
        OptionError: the stage is unknown.
    """
    kind = stage_kind(name)
    if kind not in stage_kinds():
        raise OptionError(f"{name}: no such stage of training; {one_of(name, stage_kinds())}")
    stage: type[Objective[Any]] = importlib.import_module(f"{__name__}.{kind}").STAGE
    return stage
