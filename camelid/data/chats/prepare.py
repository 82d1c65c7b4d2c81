"""From records of conversations to a data folder, through the same steps as documents; see `camelid.data.prepare`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from camelid.data.chats.encode import TOO_LONG
from camelid.data.chats.layouts import LAYOUTS, layout_of
from camelid.data.chats.masked_shards import MaskedTokens
from camelid.data.chats.model import ChatModel, open_chat_model
from camelid.data.chats.options import FORMS, ChatDataOptions, Form
from camelid.data.chats.tasks import ChatContext, encode_chats, read_chats
from camelid.data.decontaminate.evaluation_text import evaluation_text
from camelid.data.document import Document
from camelid.data.estimate import Estimate, check_memory
from camelid.data.folder import DataFolder
from camelid.data.made_from import inputs, lists
from camelid.data.manifest import Manifest, read_manifest
from camelid.data.prepare import Preparation, Prepared, Progress
from camelid.data.reading.options import SourceOptions
from camelid.data.reading.work_units import work_units
from camelid.data.shards import FOLDER
from camelid.data.sources import source_kind
from camelid.data.stage_stats import StageStats
from camelid.errors import FormatError, OptionError, one_of
from camelid.files import check_space, writing
from camelid.machine import processors
from camelid.recipe import Recipe
from camelid.tokens.training import TokenizerOptions

LOOK = 20  # records of a source that tell its layout

Sources = ChatDataOptions | Sequence[Mapping[str, Any] | SourceOptions]


def prepare_chats(
    sources: Sources,
    folder: Path,
    form: Form,
    model: Path | ChatModel,
    context: int,
    *,
    base: Path = Path(),
    seed: int = 0,
    workers: int | None = None,
    free: int | None = None,
    overwrite: bool = False,
    planned: Callable[[Estimate], None] | None = None,
    progress: Progress | None = None,
) -> Prepared:
    """Make a data folder of conversations, or go on with one; nothing is done where it is complete. The result does
    not depend on the number of workers.

    Args:
        sources: a stage's table `data`; or sources alone, as a recipe has them.
        folder: `runs/NAME/STAGE/data`.
        form: what the records are: conversations, preferences or prompts.
        model: whose tokenizer and chat template are used: a file or folder for `open_weights`.
        context: most tokens of a conversation, of either one of a preference, of a prompt.
        base: the recipe's folder, that paths are relative to.
        seed: of the recipe; chooses what is held out.
        workers: processes; None: one for each processor.
        free: bytes of memory that there are; None: not looked at.
        overwrite: replace data that was made from something else.
        planned: called with the estimate, before anything is done.
        progress: called with what is done.

    Raises:
        OptionError: an option is wrong, records are not of the form or too many do not fit, nothing is learned, or
            the folder was made from something else.
        MissingError, FormatError, ResourceError: as `camelid.data.prepare.prepare`.
    """
    if form not in FORMS:
        raise OptionError(f"form: no {form!r}; {one_of(form, FORMS)}")
    if context < 2:
        raise OptionError(f"context: must be 2 or more, got {context}")
    options = sources if isinstance(sources, ChatDataOptions) else ChatDataOptions(sources=_named(sources))
    chat_model = model if isinstance(model, ChatModel) else open_chat_model(model, options.chat_format)
    data = DataFolder(Path(folder), again="delete the folder")
    with writing(data.path):
        if overwrite:
            data.clear()
        work = ChatPreparation(options, data, form, chat_model, context, base, seed, workers, progress)
        if data.is_finished():
            return work.already()
        with data.locked():
            return work.make(free, planned)


def _named(sources: Sequence[Mapping[str, Any] | SourceOptions]) -> list[Any]:
    """Sources with names, for callers that have but one file."""
    return [
        {"name": f"source{number}", **source} if isinstance(source, Mapping) else source
        for number, source in enumerate(sources)
    ]


class ChatPreparation(Preparation):
    """The steps, for conversations: a record is read as its source's layout says, and encoded with a mask."""

    read_unit = staticmethod(read_chats)
    encode_group = staticmethod(encode_chats)
    options: ChatDataOptions
    context: ChatContext

    def __init__(
        self,
        options: ChatDataOptions,
        folder: DataFolder,
        form: Form,
        model: ChatModel,
        context: int,
        base: Path,
        seed: int,
        workers: int | None,
        progress: Progress | None,
    ) -> None:
        self.workers = processors() if workers is None else workers
        if self.workers < 1:
            raise OptionError(f"workers: must be at least 1, got {workers}")
        self.options, self.folder, self.form, self.model = options, folder, form, model
        tables = {"data": options.model_dump(mode="json", exclude_unset=True)}
        tables["chats"] = {"form": form, "context": context, **model.about()}
        self.recipe = Recipe(base / "-", "chats", seed, tables)  # the pedigree says where it came from
        self.tokenizer_options = TokenizerOptions(open="-")
        self.context = ChatContext(options, base, folder.path, seed, form, context, json.dumps(model.about()))
        self._progress = progress or (lambda name, done, total: None)

    def look(self) -> None:
        """Find the files, and the layout of each source's records.

        Raises:
            OptionError, MissingError, FormatError: as `prepare_chats`.
        """
        evaluation_text(self.options.decontaminate, self.context.base)
        self.units = work_units(self.options, self.context.base)
        layouts = {source.name: self._layout(source) for source in self.options.sources}
        self.context = replace(self.context, layouts=layouts)

    def make(self, free: int | None, planned: Callable[[Estimate], None] | None) -> Prepared:
        """Everything; see `prepare_chats`."""
        self.look()
        self.folder.record_plan(self.plan())
        need = self.estimate()
        if free is not None:
            check_memory(self.options, self.tokenizer_options, min(self.workers, max(1, len(self.units))), free)
        check_space(self.folder.path, need.disk)
        if planned is not None:
            planned(need)
        try:
            return self.run()
        except (OptionError, FormatError):
            self.folder.discard()  # the options will change
            raise

    def chosen(self) -> dict[str, Any]:
        """What the data is made from but for its files, as JSON."""
        usual = ChatDataOptions.model_fields["most_refused"].default  # decides whether there is data, not what is in it
        data = self.options.with_(most_refused=usual).model_dump(mode="json")
        return {"seed": self.recipe.seed, "data": data, "chats": dict(self.recipe.tables["chats"])}

    def plan(self) -> dict[str, Any]:
        return {**self.chosen(), **lists(self.options, self.context.base), "inputs": inputs(self.units)}

    def already(self) -> Prepared:
        """What was made before, if it is the same."""
        notes, manifest = (
            self.folder.check(self.chosen(), self.options, self.context.base),
            read_manifest(self.folder.path),
        )
        stage_stats = [StageStats.from_json(stage) for stage in manifest.stages]
        return Prepared(self.folder.path, manifest, stage_stats, True, [*notes, *self._told(manifest, stage_stats)])

    def _layout(self, source: SourceOptions) -> str:
        """The layout that the first records of a source have.

        Raises:
            OptionError: they have several, or none that is known.
        """
        found: dict[str | None, list[Document]] = {}
        for document in self._first(source):
            layout = layout_of(document.meta, self.form)
            found.setdefault(None if layout is None else layout.name, []).append(document)
        known = [name for name in found if name is not None]
        if not known:
            fields = sorted({name for documents in found.values() for document in documents for name in document.meta})
            wanted = "; ".join(", ".join(layout.fields) for layout in LAYOUTS[self.form])
            raise OptionError(
                f"data.sources {source.name}: no {self.form} in it; its fields: {', '.join(fields) or 'none'}; "
                f"known are records with: {wanted}"
            )
        if len(known) > 1:
            places = ", ".join(f"{name} ({found[name][0].id})" for name in known)
            raise OptionError(f"data.sources {source.name}: mixes layouts: {places}; give each a source of its own")
        return str(known[0])

    def _first(self, source: SourceOptions) -> list[Document]:
        documents: list[Document] = []
        for unit in (unit for unit in self.units if unit.source.name == source.name):
            for part in unit.parts:
                for item in source_kind(source.kind).read(part, source):
                    documents += [item] if isinstance(item, Document) else []
                    if len(documents) >= LOOK:
                        return documents
        return documents

    def learn(self) -> None:
        """Put the model's tokenizer and chat format in the folder."""
        self._check_left()
        self._check_refused(self.folder.read, self.units)
        if self.folder.tokenizer.exists():
            return
        beside = self.folder.work / "tokenizer"
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        self.model.save(beside)
        beside.replace(self.folder.tokenizer)

    def _check_refused(self, folder: Path, parts: Sequence[Any]) -> None:
        """See that few records of each source were refused.

        Raises:
            OptionError: more were than the options allow.
        """
        for source in self.options.sources:
            stats = StageStats("refused")
            for part in parts:
                name = part.source if isinstance(part.source, str) else part.source.name
                if name == source.name:
                    stats.merge(self._unit_stats(folder, part)[0])
            dropped = {reason: count for reason, count in stats.dropped.items() if reason != TOO_LONG}
            refused = sum(dropped.values())
            if refused and (refused > self.options.most_refused * stats.documents_in or not stats.documents_out):
                reason = max(dropped, key=lambda reason: dropped[reason])
                example = stats.examples[reason][0]
                raise OptionError(
                    f"data.sources {source.name}: {refused} of {stats.documents_in} records do not fit as {self.form}, "
                    f"{dropped[reason]} for: {reason}, as {example['id']}: {' '.join(example['excerpt'].split())[:80]}"
                    f"; mend them, or raise most_refused, {self.options.most_refused:g}"
                )

    def _finish(self, manifest: Manifest, stage_stats: list[StageStats]) -> Prepared:
        self._check_refused(self.folder.encoded, self._groups())
        last = stage_stats[-1]
        if not last.documents_out:
            raise OptionError(
                f"data: none of {last.documents_in} {self.form} fits into the context of {self.context.context} "
                'tokens; raise the context, or set too_long = "cut"'
            )
        about: dict[str, Any] = {"form": self.form, **self.model.about(), "context": self.context.context}
        folder, size = self.folder.path / FOLDER, manifest.vocab_size
        learned = sum(MaskedTokens(folder, [shard], size).learned() for shard in manifest.shards)
        if self.form != "prompts" and not learned:
            raise OptionError("data: no token at all is learned; look at the chat template, and at weights")
        about |= {"learned_tokens": learned, "layouts": dict(self.context.layouts)}
        manifest = replace(manifest, chats=about)
        prepared = super()._finish(manifest, stage_stats)
        return replace(prepared, notes=[*prepared.notes, *self._told(manifest, stage_stats)])

    def _told(self, manifest: Manifest, stage_stats: Sequence[StageStats]) -> list[str]:
        dated = self.model.name is None and "strftime_now" in (self.model.template or "")
        today = ["the chat template writes the date of its day into each conversation"] if dated else []
        return [*_notes(manifest, stage_stats), *today]


def _notes(manifest: Manifest, stage_stats: Sequence[StageStats]) -> list[str]:
    """What a person should look at: layouts, what was too long or refused, and how much is learned."""
    assert manifest.chats is not None
    notes = [f"{source}: read as {layout}" for source, layout in manifest.chats["layouts"].items()]
    for stats in stage_stats:
        for reason, count in sorted(stats.dropped.items()):
            if stats.name in ("read", "tokenise"):
                notes.append(
                    f"{count} of {stats.documents_in} left out: {reason}, as {stats.examples[reason][0]['id']}"
                )
    learned, tokens = manifest.chats["learned_tokens"], sum(shard.tokens for shard in manifest.shards)
    if learned:
        notes.append(f"{learned:,} of {tokens:,} tokens are learned ({learned / tokens:.0%})")
    return notes
