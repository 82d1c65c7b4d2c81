"""A Hugging Face dataset, streamed: a name on the hub, a local folder, or one that `save_to_disk` wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from camelid.data.document import Document
from camelid.data.reading.fields import FieldOptions, Malformed, check_fields, to_document
from camelid.data.reading.files import FilePart
from camelid.errors import MissingError, OptionError


class Source(FieldOptions):
    """Hugging Face datasets."""

    path: str = Field(min_length=1, description="A name on the hub, or a folder, relative to the recipe.")
    config: str | None = Field(None, description="Which part of a dataset with several.")
    split: str = Field("train")
    revision: str | None = Field(None, description="Branch, tag or commit of the repository.")


def file_parts(options: Source, folder: Path) -> list[FilePart]:
    """A part for each of the dataset's files, so that they are read side by side. On the hub a commit is chosen here,
    so that all parts, and a run that goes on later, read the same.

    Raises:
        MissingError: there is no such dataset, the hub cannot be reached, or `datasets` is not installed.
        OptionError: records lack a field that the recipe names.
    """
    local = folder / options.path
    path = str(local) if local.exists() else f"{options.path}@{_commit(options)}"
    data = _open(path, options)
    names = data.column_names
    if names is None:  # only the first record tells
        first: Mapping[str, Any] = next(iter(data), {})
        names = list(first)
    check_fields(options, names, options.path)
    count = data.num_shards
    return [FilePart(path, f"{options.path}/{number}", number, count, 0, alone=True) for number in range(count)]


def read(part: FilePart, options: Source) -> Iterator[Document | Malformed]:
    """Documents and what is none, in order. An id is the record's, else `NAME/PART#NUMBER`."""
    data = _open(part.path, options).shard(num_shards=part.stop, index=part.start)
    for number, record in enumerate(data):
        yield to_document(record, options, f"{part.label}#{number}")


def _open(path: str, options: Source) -> Any:
    try:
        import datasets
    except ImportError:
        raise MissingError(f"data.sources {options.name}: needs datasets; pip install 'camelid[datasets]'") from None
    try:
        if (Path(path) / "dataset_info.json").exists() or (Path(path) / "dataset_dict.json").exists():
            data = datasets.load_from_disk(path)
            data = data[options.split] if isinstance(data, datasets.DatasetDict) else data
            return data.to_iterable_dataset(num_shards=max(1, len(data.data.column(0).chunks)))
        name, _, commit = (path, "", "") if Path(path).exists() else path.rpartition("@")
        given = {"split": options.split, "revision": commit or None, "streaming": True}
        return datasets.load_dataset(name, options.config, **given)
    except (KeyError, ValueError) as error:
        raise OptionError(f"data.sources {options.name}: {path}: {_line(error)}; check config and split") from None
    except (OSError, datasets.exceptions.DatasetsError) as error:
        raise MissingError(f"data.sources {options.name}: {path}: {_line(error)}; check the name and the net") from None


def _commit(options: Source) -> str:
    """The commit that a branch or tag of the hub is at; where the hub cannot be reached, what the recipe says, for
    which `datasets` may have a copy."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return str(HfApi().dataset_info(options.path, revision=options.revision).sha)
    except (HFValidationError, HfHubHTTPError) as error:
        raise MissingError(
            f"data.sources {options.name}: {options.path}: no such folder, and the hub says: {_line(error)}"
        ) from None
    except Exception:  # of one of several HTTP libraries
        return options.revision or "main"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
