"""What a loss is compared with."""

from __future__ import annotations

import numpy as np
import pytest

from camelid.data.batches import Batches
from camelid.train.report.entropy import unigram_entropy
from tests.data.made import make_data, some_documents


def test_unigram_entropy_is_that_of_the_tokens(tmp_path):
    make_data(tmp_path, some_documents(80))
    batches = Batches(tmp_path / "data", 32, 8, 0)
    tokens = batches.manifest.tokens(tmp_path / "data", "made")
    counts = np.bincount(tokens.slice(0, len(tokens)))
    shares = counts[counts > 0] / counts.sum()
    assert unigram_entropy(batches) == pytest.approx(-(shares * np.log(shares)).sum(), rel=1e-12)
