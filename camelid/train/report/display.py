"""A run as a person watches it: a block that is drawn anew on a terminal, plain lines elsewhere. No torch here."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from camelid.console import Terminal
from camelid.streams import literal
from camelid.train.events import Step
from camelid.train.report.metrics import TimeLeft
from camelid.train.report.units import count, duration, memory

BARS = "▁▂▃▄▅▆▇█"
_CURVE_WIDTH = 32


class Display:
    """Shows steps as they come; a context that leaves the last state on the terminal.

    Args:
        title: what is trained, as `tiny, pretrain`.
        steps: the last step's number.
        tokens: ids that the whole run reads; 0 if unknown.
        about: a line below the title, as the number of parameters and where they are trained.
        unigram: entropy of the training tokens, nats: the loss of a model that knows their frequencies only.
        console: where to draw; standard error.
        every: seconds between plain lines.
    """

    def __init__(
        self,
        title: str,
        steps: int,
        *,
        tokens: int = 0,
        about: str = "",
        unigram: float | None = None,
        console: Console | None = None,
        every: float = 10,
    ) -> None:
        self._console = console or Terminal(stderr=True)
        self._title, self._steps, self._tokens, self._about = title, steps, tokens, about
        self._unigram, self._every = unigram, every
        self._left, self._seconds_left = TimeLeft(steps), 0.0
        self._last: Step | None = None
        self._curves = {name: Sparkline() for name in ("loss", "grad_norm", "lr")}
        self._validation: tuple[int, float] | None = None
        self._saved: tuple[str, float] | None = None
        self._printed: tuple[int, float] | None = None  # the step of the last plain line, and when
        self._live: Live | None = None

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=True, refresh_per_second=4, get_renderable=self._draw)
            self._live.start()
        else:
            self._print(literal(", ".join(filter(None, [self._title, self._about]))))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            with _anyone_reading():
                self._live.stop()
        elif self._last is not None and self._printed is not None and self._printed[0] != self._last.step:
            self._say(self._last)

    def step(self, step: Step) -> None:
        """Take in a step."""
        self._last, self._seconds_left = step, self._left.after(step)
        numbers = step.numbers()
        for name, curve in self._curves.items():
            curve.add(numbers[name])
        validation = numbers.get("validation_loss")
        if validation is not None:
            self._validation = (step.step, validation)
        due = self._printed is None or time.monotonic() >= self._printed[1] + self._every
        if self._live is None and (due or validation is not None):
            self._say(step)

    def saved(self, name: str) -> None:
        """Take in that a checkpoint of this name is complete."""
        self._saved = (name, time.monotonic())
        if self._live is None:
            self._print(f"saved {literal(name)}")

    def note(self, text: str) -> None:
        """A line that stays, above the block."""
        self._print(literal(text))

    def _say(self, step: Step) -> None:
        self._printed = (step.step, time.monotonic())
        parts = [f"step {step.step}/{self._steps}", f"loss {step.loss:.4f}", f"grad norm {step.grad_norm:.3g}"]
        parts += [f"lr {step.lr:.3g}", speed(step), memory(step.memory_bytes)]
        if "validation_loss" in step.metrics:
            parts.append(f"validation loss {step.metrics['validation_loss']:.4f}")
        parts.append(f"{duration(self._seconds_left)} left")
        self._print(", ".join(filter(None, parts)))

    def _print(self, text: str) -> None:
        with _anyone_reading():
            self._console.print(text, soft_wrap=True)

    def _draw(self) -> RenderableType:
        title = Text.assemble((self._title, "bold"), "  ", (self._about, "dim"))
        step = self._last
        if step is None:
            return Group(title, Text("  the first step is computed …", style="dim"))
        bar = Table.grid(padding=(0, 2, 0, 0))
        left = f"{duration(self._seconds_left)} left" if step.step < self._steps else "done"
        bar.add_row(
            "",
            ProgressBar(self._steps, step.step, width=_CURVE_WIDTH + 12),
            f"[bold]{step.step:,}[/] of {self._steps:,} steps",
            f"[dim]{left}[/]",
        )
        return Group(title, bar, self._numbers(step))

    def _numbers(self, step: Step) -> Table:
        table = Table.grid(padding=(0, 2, 0, 0))
        unigram = f"[dim]unigram entropy {self._unigram:.3f}[/]" if self._unigram is not None else ""
        table.add_row("", "[dim]loss[/]", f"[bold]{step.loss:.4f}[/]", self._curves["loss"].bars("cyan"), unigram)
        if self._validation is not None:
            at, loss = self._validation
            table.add_row("", "[dim]validation[/]", f"{loss:.4f}", f"[dim]after step {at:,}[/]")
        table.add_row("", "[dim]grad norm[/]", f"{step.grad_norm:.3g}", self._curves["grad_norm"].bars("yellow"))
        table.add_row("", "[dim]learning rate[/]", f"{step.lr:.3g}", self._curves["lr"].bars("green"))
        of = f"[dim]of {count(self._tokens)}[/]" if self._tokens else ""
        table.add_row("", "[dim]tokens[/]", count(step.tokens), of)
        mfu = f"[dim]{step.mfu:.0%} of the matrix units (MFU)[/]" if step.mfu is not None else ""
        table.add_row("", "[dim]tokens/s[/]", f"{step.tokens_per_second:,.0f}", mfu)
        if step.memory_bytes:
            table.add_row("", "[dim]memory[/]", memory(step.memory_bytes), "[dim]at most, so far[/]")
        if self._saved is not None:
            name, when = self._saved
            ago = f"[dim]{duration(time.monotonic() - when)} ago[/]"
            table.add_row("", "[dim]checkpoint[/]", literal(name), ago)
        return table


class Sparkline:
    """All values of a run in at most 2·`width` means: when they are full, neighbours are put together."""

    def __init__(self, width: int = _CURVE_WIDTH) -> None:
        self._width, self._each = width, 1
        self._means: list[float] = []
        self._open: list[float] = []

    def add(self, value: float) -> None:
        """Append a value."""
        self._open.append(value)
        if len(self._open) == self._each:
            self._means.append(sum(self._open) / self._each)
            self._open.clear()
        if len(self._means) == 2 * self._width:
            pairs = zip(self._means[::2], self._means[1::2], strict=True)
            self._means = [(first + second) / 2 for first, second in pairs]
            self._each *= 2

    def bars(self, style: str = "") -> Text:
        """The curve in one line of text."""
        return Text(sparkline(self._means or self._open, self._width), style=style)


@contextmanager
def _anyone_reading() -> Iterator[None]:
    """Training goes on when its terminal or pipe is closed: rich ends the program then, or the system says so."""
    with suppress(OSError, SystemExit):
        yield


def sparkline(values: Sequence[float], width: int) -> str:
    """Values as at most `width` bars from the lowest to the highest; means where there are more values than bars.

    Values that are not finite are left blank.
    """
    n_bars = min(width, len(values))
    edges = [len(values) * bar // n_bars for bar in range(n_bars + 1)] if n_bars else [0]
    means = [_mean(values[start:stop]) for start, stop in itertools.pairwise(edges)]
    there = [mean for mean in means if mean is not None]
    low, high = (min(there), max(there)) if there else (0.0, 0.0)
    height = high / 2 - low / 2  # halves, for the whole may be beyond any float
    shares = (None if mean is None else (mean / 2 - low / 2) / height if height > 0 else 0.0 for mean in means)
    return "".join(" " if share is None else BARS[round(share * (len(BARS) - 1))] for share in shares)


def speed(step: Step) -> str:
    """Tokens a second, and the share of what the machine can do if that is known."""
    mfu = f" (MFU {step.mfu:.0%})" if step.mfu is not None else ""
    return f"{step.tokens_per_second:,.0f} tokens/s{mfu}"


def _mean(values: Sequence[float]) -> float | None:
    there = [value for value in values if abs(value) < float("inf")]
    return sum(there) / len(there) if there else None
