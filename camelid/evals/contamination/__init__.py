"""Whether a model has read a benchmark's items in its training: each item's share, and figures by how large that is."""

from camelid.evals.contamination.subsets import (
    SUBSETS,
    Contamination,
    Subset,
    contamination_of,
    read_contamination,
    training_fingerprint,
    training_of,
)

__all__ = [
    "SUBSETS",
    "Contamination",
    "Subset",
    "contamination_of",
    "read_contamination",
    "training_fingerprint",
    "training_of",
]
