"""What a loss is compared with: the entropy of the tokens' frequencies."""

from __future__ import annotations

import numpy as np

from camelid.data.batches import Batches


def unigram_entropy(batches: Batches, most: int = 10_000_000) -> float:
    """Nats per token of a model that knows how frequent tokens are, and nothing else; of `most` tokens of a source,
    weighted as in training."""
    manifest = batches.manifest
    frequencies, weights = np.zeros(manifest.vocab_size), sum(source.weight for source in manifest.sources)
    for source in manifest.sources:
        tokens = manifest.tokens(batches.data, source.name, batches.validation)
        counts = np.bincount(tokens.slice(0, min(len(tokens), most)), minlength=manifest.vocab_size)
        frequencies += counts / max(1, counts.sum()) * source.weight / weights
    seen = frequencies[frequencies > 0]
    return float(-(seen * np.log(seen)).sum())
