"""What a benchmark is: items, shots, a request to the model, a score for its answer, and figures over all items.

    read(source, split) → items and shots
    request(item, shots) → Choices | Generate | Text      what the model is asked first
    follow(item, answers) → Generate | None               a next turn, which may hold what was answered before
    judge(item, answers) → Generate, …                    what another model is asked about the answers
    score(item, answered, scorer) → Verdict               numbers of one item
    metrics                                               how numbers of items become figures

A task knows no model, no endpoint and no file of results: `camelid.evals.run` asks, records and goes on after a kill.
So every method is a pure function of its arguments. A variant of a task (`mmlu:chat`) is a task of its own in `TASKS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from camelid.tokens.templates.message import Message

if TYPE_CHECKING:
    from camelid.evals.sources import Source


@dataclass(frozen=True)
class Item:
    """One question of a benchmark, or one shot.

    Attributes:
        id: unique within its split, the same on every machine; results of two models meet by it.
        group: subject, level, domain …; figures are also told by group, and errors are clustered by it where
            `Task.clustered` says so.
        fields: what the published file says, gold answer included, as JSON values.
    """

    id: str
    group: str | None
    fields: Mapping[str, Any]


# --- what a model is asked ---


@dataclass(frozen=True)
class Choices:
    """How likely is each continuation?

    Attributes:
        context: what stands before the continuations; a tuple gives each its own (WinoGrande).
        continuations: with the space that they begin with.
        unconditioned: a context that says nothing of the question ("Answer:"); with it each continuation is also
            measured alone, for pointwise mutual information.
    """

    context: str | tuple[str, ...]
    continuations: tuple[str, ...]
    unconditioned: str | None = None

    @property
    def contexts(self) -> tuple[str, ...]:
        """The context of each continuation."""
        return (self.context,) * len(self.continuations) if isinstance(self.context, str) else self.context


@dataclass(frozen=True)
class Infill:
    """A prompt with a gap, for models trained to fill in."""

    prefix: str
    suffix: str
    order: Literal["psm", "spm"] = "psm"


@dataclass(frozen=True)
class Generate:
    """What does the model write?

    Attributes:
        prompt: text goes to the model as it is; messages through its chat format (a last message of the assistant's is
            gone on with); `Infill` through its fill-in tokens.
        stops: texts that end the answer, which does not hold them.
        max_tokens: most tokens of an answer.
        n: how many answers; with `temperature` 0 there is only one.
        seed: of the run's own numbers for sampling; the runner adds the item's id, so that each item draws its own,
            the same at every run.
    """

    prompt: str | tuple[Message, ...] | Infill
    stops: tuple[str, ...] = ()
    max_tokens: int = 256
    n: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 1234


@dataclass(frozen=True)
class Text:
    """How surprised is the model by a document? It is read in windows; each token counts once."""

    text: str


Request = Choices | Generate | Text

# --- what comes back ---


@dataclass(frozen=True)
class Likelihoods:
    """Of `Choices`, in the order of the continuations: log-probability in nats, whether greedy decoding would write it,
    its tokens; and log-probability after `unconditioned`, if that was asked for."""

    logprobs: tuple[float, ...]
    greedy: tuple[bool, ...]
    n_tokens: tuple[int, ...]
    unconditioned: tuple[float, ...] = ()


@dataclass(frozen=True)
class Written:
    """Of `Generate`: n texts, why each ended (stop, length), and how many tokens each has."""

    texts: tuple[str, ...]
    finish_reasons: tuple[str, ...]
    n_tokens: tuple[int, ...] = ()

    @property
    def text(self) -> str:
        """The first text."""
        return self.texts[0]


@dataclass(frozen=True)
class TextLoss:
    """Of `Text`: negative log-likelihood in nats, over how many tokens; bytes (UTF-8) of the text."""

    nll: float
    n_tokens: int
    n_bytes: int


Answer = Likelihoods | Written | TextLoss


@dataclass(frozen=True)
class Answered:
    """All that an item got: an answer a turn, and what the judge wrote to each of `Task.judge`'s requests."""

    turns: tuple[Answer, ...]
    judged: tuple[Written, ...] = ()

    @property
    def last(self) -> Answer:
        """The answer to the last request."""
        return self.turns[-1]

    @property
    def likelihoods(self) -> Likelihoods:
        """The last answer of a task that asks `Choices`."""
        assert isinstance(self.last, Likelihoods)
        return self.last

    @property
    def written(self) -> Written:
        """The last answer of a task that asks `Generate`."""
        assert isinstance(self.last, Written)
        return self.last


@dataclass(frozen=True)
class Verdict:
    """What an item's answers are worth.

    Attributes:
        scores: by name. None: unparsable, which equals nothing, is counted apart and is no 0 that anyone gave; a name
            that is absent: the item does not count there. With n samples a score is already the item's own figure
            (pass@k, a majority's vote). A name ends in `_compat` or `_fixed` only where the two can differ.
        filtered: what was taken out of the answer and compared, by filter, as JSON values.
        notes: what happened and is to be counted over all items, as "timeout".
    """

    scores: Mapping[str, float | None]
    filtered: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


# --- figures ---


@dataclass(frozen=True)
class Metric:
    """How scores of items become a figure with its error.

    Attributes:
        name: as it is printed.
        score: name in `Verdict.scores`.
        how: mean: over items. macro: mean of the groups' means. ratio: sum of `score` over sum of `per`; exp: e to
            that (perplexity); bits: that over ln 2 (bits per byte).
        per: the score below the line, for ratio, exp and bits.
        unparsable: zero: None counts as 0, as a wrong answer does; out: it does not count.
        percent: whether the figure is shown as a percentage.
        higher_is_better: for comparisons.
    """

    name: str
    score: str
    how: Literal["mean", "macro", "ratio", "exp", "bits"] = "mean"
    per: str | None = None
    unparsable: Literal["zero", "out"] = "zero"
    percent: bool = True
    higher_is_better: bool = True


@dataclass(frozen=True)
class Splits:
    """Names of the splits that items and shots come from; `shots` None: the task has its own, or none.

    Shots never come from another split than the one that is named here.
    """

    items: str = "test"
    shots: str | None = None


class Scorer:
    """What `Task.score` needs while a run lasts: a sandbox, a process that evaluates answers. The base has nothing.

    Attributes:
        conditions: what it adds to the conditions of the result, as what a sandbox enforces.
    """

    conditions: Mapping[str, Any] = {}


class Task:
    """A benchmark. A file in `tasks/` derives from this; instances differ by what their constructor sets.

    Attributes:
        name: in `TASKS`: lower-case, `-` between words, `:` before a variant.
        title: as people write it.
        version: of prompts and scorers; a change of either makes it another number.
        splits: where items and shots come from.
        n_shots: if nothing else is asked for; None: the task takes no shots.
        metrics: figures; the first is the one that people quote.
        conditions: what else one must know of how it was measured, as JSON values: prompt (its family), scorer …
        clustered: items of a group are not independent (documents, subjects), so errors are clustered.
        needs_judge: whether another model judges.
        scoring_threads: how many items may be scored at once, in threads; for scorers that wait for a process.
        categories: group → a larger group (MMLU's subjects → stem, humanities …), told beside.
        guesses: what guessing scores in the first metric, if that is known; shown beside the figure.
    """

    name: str
    title: str = ""
    version: int = 1
    splits: Splits = Splits()
    n_shots: int | None = 0
    metrics: tuple[Metric, ...] = (Metric("acc", "acc"),)
    conditions: Mapping[str, Any] = {}
    clustered: bool = False
    needs_judge: bool = False
    scoring_threads: int = 1
    categories: Mapping[str, str] = {}
    guesses: float | None = None
    in_core: ClassVar[bool] = False  # whether `camelid pull eval:core` brings its items

    def read(self, source: Source, split: str) -> Iterable[Item]:
        """Items of a split, in the published order.

        Raises:
            FormatError: items of another form, or without a gold answer; says which.
            OptionError: the source has no such split.
        """
        raise NotImplementedError

    def choose_shots(self, items: Sequence[Item], pool: Sequence[Item], n: int) -> Sequence[Sequence[Item]]:
        """The n shots of each item, from the split that is named for shots (`pool`; () if none is named).

        Here: the first n of the item's group, or of all where the pool's items have no group. The runner refuses shots
        that are the item. A task with shots of its own, or that draws them, has its own way.
        """
        by_group: dict[str | None, list[Item]] = {}
        for shot in pool:
            by_group.setdefault(shot.group, []).append(shot)
        ungrouped = set(by_group) <= {None}
        return [by_group.get(None if ungrouped else item.group, [])[:n] for item in items]

    def request(self, item: Item, shots: Sequence[Item]) -> Request:
        """What the model is asked first."""
        raise NotImplementedError

    def follow(self, item: Item, answers: Sequence[Answer]) -> Generate | None:
        """The next turn after these answers; None: there is no more."""
        return None

    def judge(self, item: Item, answers: Sequence[Answer]) -> Sequence[Generate]:
        """What the judge model is asked when all turns are answered."""
        return ()

    def open_scorer(self, options: Mapping[str, Any]) -> AbstractContextManager[Scorer]:
        """What `score` gets as its third argument, for as long as the run lasts.

        Args:
            options: what the user chose for scorers: `sandbox` (strict, basic), `accept_generated_code` (bool).
        """
        return nullcontext(Scorer())

    def score(self, item: Item, answered: Answered, scorer: Any) -> Verdict:
        """What the answers are worth. The same arguments give the same verdict, in any order of items."""
        raise NotImplementedError
