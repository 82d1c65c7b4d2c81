"""`camelid train RECIPE --dry-run`: what a run would take, and nothing is started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table

from camelid.cli.console import print_json
from camelid.console import Terminal
from camelid.errors import OptionError, ResourceError
from camelid.hub.catalog import CATALOG
from camelid.hub.store import resolve
from camelid.model.config import ModelConfig
from camelid.model.family import FAMILY
from camelid.model.options import ModelOptions
from camelid.recipe import Recipe
from camelid.streams import literal
from camelid.tokens.training import TokenizerOptions
from camelid.train.options import RunOptions
from camelid.train.planning.devices import DEVICES, device_named
from camelid.train.planning.models import beside, learned_parameters
from camelid.train.planning.plan import MFU, Plan, check_fits, plan
from camelid.train.report.units import count, duration, memory
from camelid.train.stages import load_stage
from camelid.weights.open import open_weights

_SOME = 100  # steps that are planned for where they follow from data that is not there
_MANY = (64, 1024)  # GPUs for which the table says how long it takes


def show_plan(
    recipe: Recipe, stages: Sequence[str], gpu: str | None, gpus: int | None, mfu: float | None, json: bool
) -> None:
    """Print what stages of a recipe would take, on one kind of GPU or on each that is known.

    Args:
        recipe: what would be trained; its data need not be there.
        stages: which of its stages.
        gpu: a title of `DEVICES`; with None all of them are compared.
        gpus: how many; with None the fewest that hold it.
        mfu: share of the peak that is assumed; with None the usual one.
        json: one JSON object instead of tables.

    Raises:
        OptionError: what the recipe or the flags say wrongly.
        ResourceError: a stage does not fit on the GPUs that were asked for; says which settings would.
    """
    planned = [_planned(recipe, stage, gpu, gpus, mfu or MFU) for stage in stages]
    if json:
        rows = [{"stage": each.stage, **each.as_json()} for each in planned]
        print_json({"name": recipe.name, **(planned[0].as_json() if len(rows) == 1 else {"stages": rows})})
        return
    console = Terminal()
    for each in planned:
        title = f"\n[bold]{literal(recipe.name)}[/] [dim]{literal(each.stage)}, dry run[/]\n"
        console.print(Group(title, _what(each)))
        only = len(each.plans) + len(each.refusals) == 1
        console.print(_on_gpu(each) if only else _on_each_gpu(each.plans, each.options))
        for refusal in each.refusals:
            console.print(f"  [dim]{literal(refusal)}[/]", soft_wrap=True)
    if len(planned) > 1 and gpu is not None:
        days = sum(each.plans[0].days for each in planned)
        disk = sum(each.plans[0].kept * each.plans[0].checkpoint_bytes for each in planned)
        console.print(f"  all stages: [bold]{duration(days * 86400)}[/], {memory(disk)} of disk\n")


@dataclass(frozen=True)
class _Planned:
    """A stage, and what it takes on each kind of GPU that holds it; of the others, why they do not."""

    stage: str
    config: ModelConfig
    options: RunOptions
    epochs: float | None
    plans: list[Plan]
    refusals: list[str]

    def as_json(self) -> dict[str, Any]:
        return {"plans": [estimate.as_json() for estimate in self.plans], "does_not_fit": self.refusals}


def _planned(recipe: Recipe, stage: str, gpu: str | None, gpus: int | None, mfu: float) -> _Planned:
    options = recipe.stage_table(stage, load_stage(stage).Options)
    config = shape_of(recipe, options)
    epochs = getattr(options, "epochs", None)
    if epochs is not None:
        options = options.with_(steps=_SOME, epochs=None)
    plans, refusals = [], []
    for kind in [device_named(gpu)] if gpu is not None else DEVICES.values():
        try:
            estimate = plan(config, options, kind, gpus, mfu, stage)
            check_fits(config, options, estimate, stage)
            plans.append(estimate)
        except ResourceError as error:
            refusals.append(str(error))
    if not plans:
        where = f"{recipe.path}: {stage}" if len(recipe.stages) > 1 else recipe.path
        raise ResourceError(f"{where}: {refusals[-1]}")
    return _Planned(stage, config, options, epochs, plans, refusals)


def shape_of(recipe: Recipe, options: RunOptions) -> ModelConfig:
    """The model that a recipe trains, before there is a tokenizer: its size is what the recipe asks for. One that it
    begins from need not be here, if it has a name in the catalog."""
    if recipe.base is not None:
        title = CATALOG[recipe.base].title if recipe.base in CATALOG else None
        return FAMILY[title].config if title in FAMILY else open_weights(resolve(recipe.base)).config
    model, tokenizer = recipe.table("model", ModelOptions), recipe.table("tokenizer", TokenizerOptions)
    if tokenizer.open is None:
        return model.config(tokenizer.vocab_size, options.context)
    if model.vocab_size is not None:
        return model.config(model.vocab_size, options.context)
    if model.like in FAMILY:
        return model.config(FAMILY[model.like].config.vocab_size, options.context)
    raise OptionError(f"{recipe.path}: model.vocab_size: give it for a dry run, which does not open the tokenizer")


def _what(planned: _Planned) -> RenderableType:
    config, options, estimate, table = planned.config, planned.options, planned.plans[0], _rows()
    table.add_row("parameters", f"[bold]{estimate.parameters:,}[/]")
    shape = (
        f"{config.n_layers} layers, {config.dim} wide, feed-forward {config.ffn_dim}, {config.n_heads} heads sharing "
    )
    table.add_row("shape", f"{shape}{config.n_kv_heads} keys/values, {config.vocab_size:,} tokens")
    batch = f"{options.steps:,} steps of {count(options.batch_tokens)}: {options.rows:,} rows of {options.context:,}"
    if planned.epochs is not None:
        batch += f", for example: it will be {planned.epochs:g} epochs of the data"
    table.add_row("tokens", f"[bold]{count(estimate.tokens)}[/]  [dim]{batch}[/]")
    for title, held in (("beside it", True), ("before it", False)):
        models = [model.name.replace("_", " ") for model in beside(planned.stage, options) if model.held == held]
        if models:
            table.add_row(title, f"{', '.join(models)}  [dim]frozen, of its size[/]")
    per_token = f"{count(estimate.flops_per_token)} a token, forward and backward"
    table.add_row("arithmetic", f"[bold]{estimate.flops:.2e}[/] FLOPs  [dim]{per_token}[/]")
    if options.lora is not None:
        learned = learned_parameters(config, options)
        table.add_row("learned", f"{learned:,}  [dim]adapters of rank {options.lora.rank}; the rest is frozen[/]")
    what = "model in bf16" if options.lora is None else "adapters"
    table.add_row("a checkpoint", f"{memory(estimate.checkpoint_bytes)}  [dim]{what}, and the training state[/]")
    kept = f"{estimate.kept} kept at the end: the newest, and milestones"
    table.add_row("disk", f"{memory(estimate.kept * estimate.checkpoint_bytes)}  [dim]{kept}[/]")
    return table


def _on_gpu(planned: _Planned) -> RenderableType:
    estimate, options = planned.plans[0], planned.options
    needed = estimate.memory
    table = _rows()
    rows = f"{estimate.micro_rows} row{'s' if estimate.micro_rows > 1 else ''} at a time"
    again = ", layers computed again" if options.recompute else ""
    notes = {
        "weights": "float32" if options.lora is None else f"frozen in {options.precision}, and float32 adapters",
        "gradients": "float32",
        "optimizer": "AdamW's two averages",
        "working": "copies that compute, gradients on their way",
        "activations": rows + again,
        "logits": "of a piece of the rows",
        "runtime": "driver, communication, fragments",
        "reference": "what the policy is held near, frozen",
        "reward": "frozen",
        "safety_reward": "frozen",
        "rollouts": "the copy that writes answers",
    }
    for name, note in notes.items():
        if not getattr(needed, name):
            continue
        table.add_row(name.replace("_", " "), f"{memory(getattr(needed, name))}  [dim]{note}[/]")
    table.add_row("in all", f"[bold]{memory(needed.total)}[/]  [dim]of {memory(estimate.device.memory)} on each[/]")
    took = duration(estimate.days * 86400)
    speed = f"{estimate.mfu:.0%} of {estimate.device.flops / 1e12:.0f} TFLOPS"
    time = f"[bold]{took}[/] on {estimate.ranks:,}; {_hours(estimate)} GPU hours at {speed}"
    return Group(f"\n{estimate.ranks:,} × {estimate.device.title}\n", table, "", f"  {time}\n")


def _on_each_gpu(plans: list[Plan], options: RunOptions) -> RenderableType:
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("GPU", "fewest", "memory of each", "GPU hours", *(f"on {n:,}" for n in _MANY)):
        table.add_column(title, justify="left" if title == "GPU" else "right", no_wrap=True)
    for estimate in plans:
        many = [n if n >= estimate.ranks and options.rows % n == 0 else None for n in _MANY]
        days = ["–" if n is None else duration(estimate.gpu_hours / n * 3600) for n in many]
        table.add_row(
            estimate.device.title, f"{estimate.ranks:,}", memory(estimate.memory.total), _hours(estimate), *days
        )
    note = f"  [dim]at {plans[0].mfu:.0%} of the peak; --gpu and --gpus show where the memory goes[/]\n"
    return Group("", table, "", note)


def _hours(estimate: Plan) -> str:
    return f"{estimate.gpu_hours:,.0f}" if estimate.gpu_hours >= 10 else f"{estimate.gpu_hours:.2g}"


def _rows() -> Table:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 2))
    table.add_column(style="dim")
    return table
