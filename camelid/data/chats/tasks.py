"""What workers do for conversations, unit by unit, as `worker_tasks` does it for documents."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from camelid.data.chats.encode import CUT, Encoded, Encoder
from camelid.data.chats.layouts import LAYOUTS, Layout
from camelid.data.chats.masked_shards import MaskedShardWriter
from camelid.data.chats.model import read_chat_model
from camelid.data.chats.options import ChatDataOptions, Form
from camelid.data.chats.records import ChatRecord, MisfitError
from camelid.data.dedup.signatures import Signer
from camelid.data.document import Document
from camelid.data.filters.rules import Filters
from camelid.data.folder import write_json
from camelid.data.reading.documents import read_documents, write_documents
from camelid.data.reading.fields import FieldOptions, Malformed
from camelid.data.reading.work_units import WorkUnit
from camelid.data.sources import source_kind
from camelid.data.stage_stats import StageStats
from camelid.data.worker_tasks import Group, PrepareContext, is_validation, save_stage_stats
from camelid.errors import FormatError, OptionError
from camelid.tokens.templates.chat_format import ChatFormat
from camelid.tokens.tokenizer import Tokenizer

CHAT = "chat"  # the record, among a document's metadata


@dataclass(frozen=True)
class ChatContext(PrepareContext):
    """What all workers know.

    Attributes:
        form: of the records.
        context: most tokens of one.
        model: what `ChatModel.about` says, as text.
        layouts: source → name of its records' layout.
    """

    options: ChatDataOptions
    form: Form = "conversations"
    context: int = 0
    model: str = ""
    layouts: Mapping[str, str] = field(default_factory=dict)

    def layout(self, source: str) -> Layout:
        """Of the records of a source."""
        return next(layout for layout in LAYOUTS[self.form] if layout.name == self.layouts[source])


def read_chats(context: ChatContext, unit: WorkUnit) -> None:
    """Read a unit's records, and make signatures of them."""
    folder, stats, signer = context.data_folder, StageStats("read", filters=False), Signer(context.options.dedup)
    compared, no_filters = bool(context.options.dedup.stages()), Filters({}, context.base)

    def remaining() -> Iterator[Document]:
        for document in _documents(context, unit, stats):
            if compared and (passed := no_filters(document)) is not None:
                signer.add(*passed)
            yield document

    write_documents(folder.read / f"{unit.name}.jsonl.gz", remaining())
    signer.save(folder.read / f"{unit.name}.npz")
    save_stage_stats(folder.read / f"{unit.name}.json", [stats])


def _documents(context: ChatContext, unit: WorkUnit, stats: StageStats) -> Iterator[Document]:
    options, layout, started = unit.source, context.layout(unit.source.name), time.perf_counter()
    assert isinstance(options, FieldOptions)
    for part in unit.parts:
        for item in source_kind(options.kind).read(part, options):
            if stats.documents_out == options.max_documents:
                return
            made = item if isinstance(item, Malformed) else as_chat(item, layout, options)
            if isinstance(made, Malformed):
                if options.malformed == "error":
                    raise FormatError(
                        f"{part.path or options.name}: {made.reason} at {made.id}; fix it, or set "
                        'malformed = "drop" in its source'
                    )
                stats.documents_in += 1
                stats.refuse(made.reason, made.id, made.text)
                continue
            stats.keep(made)
            stats.seconds += time.perf_counter() - started
            yield made
            started = time.perf_counter()
    stats.seconds += time.perf_counter() - started


def as_chat(document: Document, layout: Layout, options: FieldOptions) -> Document | Malformed:
    """A document that is a whole record, as one whose text is what is said in it, with the record as `CHAT`."""
    fields = document.meta
    try:
        if not layout.fits(fields):
            raise MisfitError(f"not of the layout {layout.name!r}")
        record = layout.read(fields)
    except MisfitError as misfit:
        return Malformed(str(misfit), document.id, json.dumps(dict(fields), ensure_ascii=False)[:300])
    text = record.text()
    if len(text) > options.longest:
        return Malformed("too long", document.id, text[:300])
    kept = {name: fields[name] for name in options.keep_fields if fields.get(name) is not None}
    meta = {CHAT: record.as_json() | {"about": {**kept, **record.about}}}
    return Document(text, document.id, document.source, document.url, document.licence, meta)


def encode_chats(context: ChatContext, group: Group) -> None:
    """Ids and masks of a group's records, those for training and those held out for validation."""
    data_folder, stats = context.data_folder, StageStats("tokenise", filters=False)
    encoder = _encoder(context)
    folder, size = data_folder.encoded / group.name, encoder.tokenizer.vocab_size
    writers = [MaskedShardWriter(folder, group.source, size, validation) for validation in (False, True)]
    with writers[0].ids, writers[1].ids:
        for name in group.units:
            for document in read_documents(data_folder.documents / f"{name}.jsonl.gz"):
                encoded = _encoded(encoder, document, stats)
                if encoded is None:
                    continue
                about = _about(document, encoded, context.form)
                writers[is_validation(document, context)].add(about, encoded.ids, encoded.mask)
                stats.keep(document)
                stats.change("tokens", len(encoded.ids))
                stats.change("learned tokens", int((encoded.mask & 1).sum()))
                if encoded.n_cut:
                    stats.change(CUT)
                    stats.example(CUT, document.id, document.text)
        shards = [shard for writer in writers for shard in writer.close()]
    rows = {"shards": [asdict(shard) for shard in shards], "stages": [{**stats.as_json(), "seconds": stats.seconds}]}
    write_json(data_folder.encoded / f"{group.name}.json", rows)


def _encoded(encoder: Encoder, document: Document, stats: StageStats) -> Encoded | None:
    try:
        return encoder(ChatRecord.from_json(document.meta[CHAT]))
    except MisfitError as misfit:
        stats.drop(document, str(misfit))
        return None
    except OptionError as error:
        raise OptionError(f"data.sources {document.source}: {document.id} {error}", param=error.param) from None


def _about(document: Document, encoded: Encoded, form: Form) -> Document:
    """The document as its shard keeps it on record."""
    meta = dict(document.meta[CHAT].get("about", {}))
    if form == "prompts":
        meta = {"messages": list(encoded.messages), "about": meta}
    return Document(document.text, document.id, document.source, document.url, document.licence, meta)


@functools.lru_cache(maxsize=1)
def _model(folder: Path, about: str) -> tuple[Tokenizer, ChatFormat]:
    model = read_chat_model(folder)
    return model.tokenizer, model.chat_format


def _encoder(context: ChatContext) -> Encoder:
    tokenizer, chat_format = _model(context.data_folder.tokenizer, context.model)
    return Encoder(tokenizer, chat_format, context.form, context.context, context.options.too_long)
