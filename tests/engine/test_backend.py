"""The choice of a backend, and what each promises beside its numbers."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from camelid import machine
from camelid.engine import load
from camelid.engine.options import EngineOptions
from camelid.errors import MissingError, OptionError, ResourceError
from camelid.weights.tensor import Tensor
from tests.engine.backends import forward, span, tiny_backend
from tests.tiny import tiny_config, tiny_tensors


def weights() -> SimpleNamespace:
    """As much of an opened model as a backend looks at."""
    arrays = tiny_tensors(tiny_config())
    tensors = {
        name: Tensor(name, array.shape, "F32", lambda array=array: array.reshape(-1, array.shape[-1]).view(np.uint8))
        for name, array in arrays.items()
    }
    return SimpleNamespace(has_tokenizer=False, path=Path("tiny"), config=tiny_config(), tensors=tensors)


@pytest.mark.parametrize(
    ("name", "options", "error", "words"),
    [
        ("numpyy", {}, OptionError, "did you mean 'numpy'"),
        ("cpu", {"dtype": "bfloat16"}, OptionError, "--backend torch"),
        ("numpy", {"dtype": "bfloat16"}, OptionError, "--backend torch"),
    ],
)
def test_a_choice_that_cannot_be_is_refused(name, options, error, words):
    with pytest.raises(error, match=words):
        load.choose_backend(weights(), name, EngineOptions(**options))


def test_without_torch_the_install_line_is_given(monkeypatch):
    monkeypatch.setattr(load, "has_torch", lambda: False)
    with pytest.raises(MissingError, match=r"pip install 'camelid\[train\]'"):
        load.choose_backend(weights(), "torch", EngineOptions())


@pytest.mark.parametrize(
    ("torch", "gpu", "expected"), [(True, True, "torch"), (False, True, "cpu"), (True, False, "cpu")]
)
def test_automatic_takes_torch_for_a_gpu_only(monkeypatch, torch, gpu, expected):
    monkeypatch.setattr(load, "has_torch_for_cuda", lambda: torch)
    monkeypatch.setattr(load, "gpus", lambda: int(gpu))
    assert load.automatic() == expected


def test_without_a_compiler_numpy_computes_and_says_so(monkeypatch, caplog):
    monkeypatch.setattr(load, "gpus", lambda: 0)
    monkeypatch.setattr(load, "has_cpu", lambda: False)
    assert load.automatic() == "numpy"
    assert "the C++ engine is not built" in caplog.text
    with pytest.raises(MissingError, match="part is not built"):
        load.choose_backend(weights(), "cpu", EngineOptions())


def test_a_hidden_gpu_is_none(monkeypatch, tmp_path):
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    assert machine.gpus(tmp_path) == 1
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert machine.gpus(tmp_path) == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_a_loaded_model_computes_and_one_too_large_is_refused(monkeypatch, name):
    loaded = load.choose_backend(weights(), name, EngineOptions())
    loaded.allocate(4)
    asked = span((1, 2, 3), 0, (2,), "all")
    ready = tiny_backend(name)
    ready.allocate(4)
    np.testing.assert_array_equal(forward(loaded, asked), forward(ready, asked))
    monkeypatch.setattr(f"camelid.engine.backend_{name}.available_bytes", lambda: 10**8)
    with pytest.raises(ResourceError, match=r"tiny: needs 0\.3 GB"):
        load.choose_backend(weights(), name, EngineOptions())


@pytest.mark.parametrize("name", ["numpy", "torch"])
@pytest.mark.parametrize("pages", [(0, 1, 2), (3, 1, 5)])
def test_where_pages_lie_changes_no_bit(name, pages):
    """In line, pages are read in place; scattered, they are copied."""
    ids = tuple(np.random.default_rng(0).integers(0, 320, 11).tolist())

    def rows(pages: tuple[int, ...]) -> np.ndarray:
        model = tiny_backend(name, page_size=4)
        model.allocate(6)
        parts = [forward(model, span(ids[start:end], start, pages, "all")) for start, end in ((0, 7), (7, 11))]
        return np.concatenate(parts)

    np.testing.assert_array_equal(rows(pages), rows((1, 2, 3)))


@pytest.mark.parametrize("name", ["numpy", "torch"])
def test_a_copied_page_holds_the_same(name):
    model = tiny_backend(name, page_size=4)
    model.allocate(6)
    forward(model, span((1, 2, 3, 4, 5), 0, (0, 1), "none"))
    model.copy_page(1, 4)
    own = forward(model, span((6,), 5, (0, 1), "last"))
    copied = forward(model, span((6,), 5, (0, 4), "last"))
    np.testing.assert_array_equal(own, copied)


def test_only_wanted_rows_come_back_in_order():
    model = tiny_backend("numpy")
    model.allocate(4)
    whole = forward(model, span((1, 2, 3), 0, (0,), "all"), span((4, 5), 0, (1,), "all"))
    asked = (span((4, 5), 0, (1,), "last"), span((9,), 0, (2,), "none"), span((1, 2, 3), 0, (0,), "all"))
    # One row and several may go through different BLAS kernels, which round differently.
    np.testing.assert_allclose(forward(model, *asked), whole[[4, 0, 1, 2]], rtol=1e-4, atol=1e-5)
    assert forward(model, span((1,), 0, (3,), "none")).shape == (0, 320)
