"""How surprised a model is by documents, domain by domain, as Paloma measures it (Magnusson et al., 2023).

Each document is read on its own, in windows of the whole context; the first id of a window is seen as context only, so
that each token counts once. Bits per byte can be compared between tokenizers, perplexity per word too; perplexity per
token cannot. The domain is a field of the row (`domain`, `subdomain` or `source`), or the folder of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from camelid.errors import FormatError, OptionError
from camelid.evals.sources import Source
from camelid.evals.task import Answered, Item, Metric, Request, Scorer, Splits, Task, Text, TextLoss, Verdict

_DOMAINS = ("domain", "subdomain", "source")
_ROWS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".parquet", ".arrow")
_TEXTS = (".txt", ".txt.gz", ".md", ".text")


def _metric(name: str, how: Any, per: str) -> Metric:
    return Metric(name, "nll", how=how, per=per, percent=False, higher_is_better=False)


class Documents(Task):
    """Perplexity of whatever documents are named."""

    name = "perplexity"
    title = "Perplexity of documents, by domain"
    splits = Splits(items="all")
    n_shots = None
    metrics = (
        _metric("bits_per_byte", "bits", "bytes"),
        _metric("perplexity", "exp", "tokens"),
        _metric("word_perplexity", "exp", "words"),
        _metric("byte_perplexity", "exp", "bytes"),
    )
    conditions: Mapping[str, Any] = {
        "windows": "of the whole context; each token counts once",
        "words": "between spaces",
    }

    def read(self, source: Source, split: str) -> Iterable[Item]:
        names = [name for name in source.names() if name.endswith((*_ROWS, *_TEXTS))]
        if not names:
            raise OptionError(f"{source.name}: no documents here; JSON lines with `text`, or .txt files", param="data")
        for name in names:
            folder = name.rpartition("/")[0] or None
            if name.endswith(_TEXTS):
                document = _decoded(source.read(name), f"{source.name}: {name}")
                if document.strip():
                    yield Item(name, folder, {"text": document})
                continue
            for number, row in enumerate(source.read_rows(name)):
                text = row.get("text")
                if not isinstance(text, str):
                    raise FormatError(f"{source.name}: {name}: row {number}: has no field `text` with a text")
                domain = next((row[each] for each in _DOMAINS if isinstance(row.get(each), str)), folder)
                if text.strip():
                    yield Item(f"{name}:{number}", domain, {"text": text})

    def request(self, item: Item, shots: Sequence[Item]) -> Request:
        return Text(item.fields["text"])

    def score(self, item: Item, answered: Answered, scorer: Scorer) -> Verdict:
        loss = answered.last
        assert isinstance(loss, TextLoss)
        words = float(len(item.fields["text"].split()))
        return Verdict({"nll": loss.nll, "tokens": float(loss.n_tokens), "bytes": float(loss.n_bytes), "words": words})


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FormatError(f"{where}: not UTF-8 at byte {error.start}") from None


TASKS = (Documents(),)
