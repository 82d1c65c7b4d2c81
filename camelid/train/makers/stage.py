"""A stage that writes what it learns from, then learns it: what `rejection`, `gatt` and `distill` share.

rejection/prompts/         what is asked, prepared as any data
rejection/answers/3f0c…/   answers as they were written, a line a prompt; the name says what they depend on
rejection/answers.jsonl    the conversations that are learned, with run.json beside it
rejection/data/            the same as ids and masks
"""

from __future__ import annotations

import gc
import json
import shutil
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field

from camelid.data.chats.chat_data import ChatData
from camelid.data.chats.options import ChatDataOptions, Form
from camelid.data.chats.prepare import prepare_chats
from camelid.data.chats.records import ChatRecord, to_messages
from camelid.data.chats.tasks import CHAT
from camelid.data.manifest import read_manifest
from camelid.data.reading.documents import read_documents
from camelid.engine.reward import RewardModel
from camelid.errors import OptionError, one_of
from camelid.files import writing
from camelid.machine import available_bytes, threads
from camelid.options import Options
from camelid.pedigree import pedigree_path, read_pedigree, write_pedigree
from camelid.run_layout import DOCUMENTS, complete_checkpoints
from camelid.tokens.templates.message import Message
from camelid.train.checkpoints.start import start_fingerprint
from camelid.train.makers.asking import EngineWriter, Writer, seed_of
from camelid.train.makers.endpoint import EndpointWriter
from camelid.train.makers.judging import CodeJudge, Judge, ModelJudge
from camelid.train.makers.lines import Lines, fingerprint, write_lines
from camelid.train.makers.making import Question, answer_together
from camelid.train.stages.sft import Sft, SftOptions

if TYPE_CHECKING:
    from camelid.train.run_stage import RunStage

ANSWERS = "answers.jsonl"
CODE = "code:"


@dataclass(frozen=True)
class Asking:
    """A record of what is asked: a prompt, or a dialogue."""

    messages: tuple[Message, ...]
    about: Mapping[str, Any]


class MakerOptions(SftOptions):
    """What every such stage says of who writes, and how; the rest is how it learns."""

    prompts: ChatDataOptions = Field(default_factory=ChatDataOptions, description="What is asked.")
    sampler: str | None = Field(
        None, description="Who answers: a stage of the recipe or a model; the one that this stage begins from, if none."
    )
    url: str | None = Field(None, description="Who answers: a server with OpenAI's API, as http://127.0.0.1:8000/v1.")
    url_model: str | None = Field(None, description="The model's name there.")
    most_prompts: int | None = Field(None, gt=0, description="Take so many of the prompts, chosen by the seed.")
    max_tokens: int = Field(512, gt=0, description="Longest answer; one that is cut is never learned.")
    top_p: float = Field(1.0, gt=0, le=1, description="Of the answers' sampling.")
    max_running: int = Field(64, gt=0, description="Answers that are written at once.")

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)
        if self.url is not None and self.sampler is not None:
            raise OptionError("url: and sampler both say who answers; leave one out", param="url")

    def making(self) -> dict[str, Any]:
        """What decides which answers are written, as JSON."""
        own = set(type(self).model_fields) - set(SftOptions.model_fields) - {"max_running", "prompts"}
        return self.model_dump(mode="json", include=own)


class JudgeOptions(Options):
    """Who says what an answer is worth."""

    reward: str | None = Field(
        None, description="A stage of the recipe or a reward model; code:NAME for a check by code. Must be said."
    )
    safety_reward: str | None = Field(None, description="A second one, which has the say where safety is at stake.")
    safety_threshold: float = Field(
        0.15, gt=0, lt=1, description="Below this probability of its being safe, safety_reward has the say."
    )

    def judges(self) -> list[str]:
        """Those that are named.

        Raises:
            OptionError: none is, or a check by code is to be gated.
        """
        if self.reward is None:
            raise OptionError("reward: must name who judges: a stage, a model or code:NAME", param="reward")
        if self.reward.startswith(CODE) and self.safety_reward is not None:
            raise OptionError("safety_reward: only a reward model is gated by another; leave it out", param="reward")
        return [name for name in (self.reward, self.safety_reward) if name is not None]


class Making:
    """What one process does to write a stage's answers; every rank makes one, and calls all of it with the others.

    Args:
        stage: of the run.
        options: of the stage.
        judged_by: models and checks that decide, by what the table calls them.
        form: of the records that are asked.
    """

    def __init__(self, stage: RunStage, options: MakerOptions, judged_by: Sequence[str], form: Form) -> None:
        self.stage, self.options, self.parallel = stage, options, stage.parallel
        if not options.prompts.sources:
            raise OptionError(f"{stage.name}.prompts: has no sources; say what is asked")
        self._start = stage.start(options.start)
        self._sampler = self._start if options.sampler is None else stage.start(options.sampler)
        if self._sampler is None:
            raise OptionError(f'{stage.recipe.path}: {stage.name} begins from a model; give base = "NAME"')
        self.form, self._judged_by, self._prompts = form, judged_by, stage.folder / "prompts"

    @property
    def path(self) -> Path:
        """Of what is learned."""
        return self.stage.folder / ANSWERS

    def made_from(self) -> dict[str, Any]:
        """All that decides what is written, as JSON; the prompts are prepared by then."""
        url, model = self.options.url, self._sampler
        assert model is not None
        writer = [url, self.options.url_model] if url is not None else start_fingerprint(model)
        judges = {
            name: name if name.startswith(CODE) else start_fingerprint(self.reward_path(name))
            for name in self._judged_by
        }
        return {
            "seed": self.stage.recipe.seed,
            "stage": self.stage.name,
            "options": self.options.making(),
            "writer": writer,
            "judges": judges,
            "prompts": read_manifest(self._prompts).fingerprint(),
        }

    def reward_path(self, name: str) -> Path:
        """Of a reward model."""
        found = self.stage.start(name)
        assert found is not None
        return found

    def prepare_prompts(self) -> None:
        """Put what is asked into a data folder of its own, checked and counted as any data."""
        from camelid.data.chats.model import open_chat_model

        stage, options = self.stage, self.options
        assert self._start is not None
        model = open_chat_model(self._start, options.chat_format or options.prompts.chat_format)
        with stage.show.bars() as progress:
            done = prepare_chats(
                options.prompts,
                self._prompts,
                self.form,
                model,
                options.context,
                base=stage.recipe.path.parent,
                seed=stage.recipe.seed,
                workers=threads()[0],
                free=available_bytes(),
                progress=progress,
            )
        for note in done.notes:
            stage.show.note(note)

    def asked(self) -> list[Asking]:
        """The records in the order of the folder, or `most_prompts` of them, chosen by the seed."""
        found = list(self._prompts_of() if self.form == "prompts" else self._dialogues_of())
        most = self.options.most_prompts
        if most is None or most >= len(found):
            return found
        ranks = sorted(range(len(found)), key=lambda at: seed_of(self.stage.recipe.seed, f"prompt {found[at].about}"))
        return [found[at] for at in sorted(ranks[:most])]

    def _prompts_of(self) -> Iterator[Asking]:
        """As they were encoded: what was too long is cut, where that was asked for."""
        data = ChatData(self._prompts, self.form, 1, self.stage.recipe.seed)
        for tokens, source in zip(data.sources, data.manifest.sources, strict=True):
            for number in range(tokens.n_documents):
                line = tokens.record(number)
                about = {**line["meta"]["about"], "id": line["id"], "source": source.name}
                yield Asking(tuple(to_messages(line["meta"]["messages"])), about)

    def _dialogues_of(self) -> Iterator[Asking]:
        """As they were read; shards of conversations do not hold what was said."""
        for path in sorted((self._prompts / DOCUMENTS).glob("*.jsonl.gz")):
            for document in read_documents(path):
                record = ChatRecord.from_json(document.meta[CHAT])
                about = {**record.about, "id": document.id, "source": document.source}
                yield Asking(tuple(to_messages(record.messages)), about)

    def writer(self) -> Writer:
        """Who answers."""
        options, seed = self.options, seed_of(self.stage.recipe.seed, self.stage.name)
        if options.url is not None:
            return EndpointWriter(
                options.url, options.url_model, seed=seed, max_tokens=options.max_tokens, top_p=options.top_p
            )
        assert self._sampler is not None
        return EngineWriter(
            self._sampler,
            seed=seed,
            max_tokens=options.max_tokens,
            top_p=options.top_p,
            context=options.context,
            max_running=options.max_running,
        )

    def judge(self, options: JudgeOptions) -> Judge:
        """Who says what answers are worth."""
        return open_judge(self, options)

    def answers(self, questions: Sequence[Question], folder: Path, writer: Writer, judge: Judge | None) -> Lines:
        """The answers to all of them, written by all ranks where they are not there yet."""
        show = self.stage.show
        with show.bars() as progress:
            return answer_together(
                questions, folder, self.parallel, writer, judge, progress if self.parallel.is_main else None
            )

    def note(self, text: str) -> None:
        """Tell a person, once."""
        if self.parallel.is_main:
            self.stage.show.note(f"{self.stage.name}: {text}")


class MakerStage(Sft):
    """Writes answers, then learns them; a subclass says which questions are asked and what is kept."""

    Options: ClassVar[type[MakerOptions]] = MakerOptions
    options: MakerOptions
    form: Form = "prompts"
    _made: Mapping[str, Any]

    @classmethod
    @abstractmethod
    def judged_by(cls, options: Any) -> Sequence[str]:
        """Reward models and checks that decide, as the table names them."""

    @classmethod
    @abstractmethod
    def make(cls, making: Making, folder: Path) -> tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]:
        """Conversations as JSON, and what is to be known of how they came to be; the same on every rank.

        Args:
            making: what there is to make them with.
            folder: of the lines of answers.
        """

    @classmethod
    def prepare(cls, stage: RunStage, options: SftOptions) -> None:
        """Write the answers where they are missing, then put them into ids and masks."""
        assert isinstance(options, MakerOptions)
        making = Making(stage, options, cls.judged_by(options), cls.form)
        made_from = stage.parallel.from_first(partial(_made_from, making))
        if not stage.parallel.from_first(partial(_is_made, making, made_from)):
            folder = stage.folder / "answers" / fingerprint(made_from)
            rows, record = cls.make(making, folder)
            stage.parallel.from_first(partial(_keep, making, made_from, rows, record))
            _forget_engines()
        super().prepare(stage, options.with_(data=_learned(options.data, making.path)))

    @classmethod
    def open(cls, stage: RunStage, options: Any) -> Self:
        objective = super().open(stage, options)
        objective._made = read_pedigree(stage.folder / ANSWERS)["counts"]
        objective.inputs = (*objective.inputs, stage.folder / ANSWERS)
        return objective

    def about(self) -> Mapping[str, Any]:
        return {**super().about(), "answers": self._made}


def _forget_engines() -> None:
    """Give back what answers were written in, before a model is trained."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def open_judge(making: Making, options: JudgeOptions) -> Judge:
    """What a stage's table names: a reward model, a second one, or `code:NAME`.

    Raises:
        OptionError: there is no such check by code, or it cannot be gated.
    """
    stage = making.stage
    first, *others = options.judges()
    if first.startswith(CODE):
        name = first.removeprefix(CODE)
        try:
            return CodeJudge(name, stage.rewards[name])
        except KeyError:
            known = one_of(name, stage.rewards) if stage.rewards else "there are none here"
        raise OptionError(f"{stage.name}.reward: no check by code {name!r}; {known}", param="reward")
    models = [RewardModel.open(making.reward_path(name)) for name in (first, *others)]
    return ModelJudge(models[0], models[1] if others else None, options.safety_threshold)


def _made_from(making: Making) -> dict[str, Any]:
    making.prepare_prompts()
    made: dict[str, Any] = json.loads(json.dumps(making.made_from()))
    return made


def _is_made(making: Making, made_from: Mapping[str, Any]) -> bool:
    """Whether the conversations are there, made from the same; what nothing was trained on yet may be made anew.

    Raises:
        OptionError: something was trained on others.
    """
    path, stage = making.path, making.stage
    if not path.is_file() or not pedigree_path(path).is_file():
        return False
    then = read_pedigree(path)["options"]
    if then == made_from:
        return True
    differs = ", ".join(name for name in made_from if then.get(name) != made_from[name])
    if complete_checkpoints(stage.folder):
        raise OptionError(
            f"{path}: was made from other {differs}, and {stage.name} was trained on it; begin anew with --fresh"
        )
    stage.show.note(f"{path}: was made from other {differs}; it is written anew")
    with writing(stage.folder):
        path.unlink()
        shutil.rmtree(stage.data, ignore_errors=True)
    return False


def _keep(
    making: Making, made_from: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], record: Mapping[str, Any]
) -> None:
    if not rows:
        raise OptionError(f"{making.stage.name}: nothing is left to learn from: {_told(record)}")
    write_lines(making.path, rows)
    write_pedigree(making.path, "train", [], made_from, record)
    making.note(_told(record))


def _told(record: Mapping[str, Any]) -> str:
    """Counts and means in words."""
    told = (
        f"{name.replace('_', ' ')} {value:,}" if isinstance(value, int) else f"{name.replace('_', ' ')} {value:.4g}"
        for name, value in record.items()
        if isinstance(value, int | float)
    )
    return ", ".join(told)


def _learned(data: ChatDataOptions, path: Path) -> ChatDataOptions:
    """What is written here, and what the table has beside it."""
    own = {"name": "answers", "kind": "jsonl", "path": str(path.resolve())}
    return data.with_(sources=(own, *data.sources))
