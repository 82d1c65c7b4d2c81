"""Arithmetic of training against torch's own count, and names of GPUs."""

from __future__ import annotations

import pytest

from camelid.errors import OptionError
from camelid.model.family import FAMILY
from camelid.train.planning.devices import device_named, device_reported, flops_per_token, matrix_parameters
from tests.tiny import tiny_config


@pytest.mark.parametrize("ties", [True, False])
def test_arithmetic_is_what_torch_counts(ties):
    torch = pytest.importorskip("torch")
    counter = pytest.importorskip("torch.utils.flop_counter")
    from camelid.model.llama_torch import LlamaTorch

    config, n = tiny_config(ties_embeddings=ties), 16
    model = LlamaTorch(config, n)

    def mix(q, k, v):
        """Plain products, which the counter sees whole, as PaLM counts them."""
        share = q.shape[-2] // k.shape[-2]
        q, k, v = (x.transpose(-2, -3) for x in (q, k.repeat_interleave(share, -2), v.repeat_interleave(share, -2)))
        return ((q @ k.transpose(-1, -2)).softmax(-1) @ v).transpose(-2, -3)

    with counter.FlopCounterMode(display=False) as count:
        ids = torch.zeros(1, n, dtype=torch.long)
        model.logits(model(ids, torch.arange(n)[None], lambda layer: mix)).sum().backward()
    assert count.get_total_flops() == n * flops_per_token(config, n)


def test_the_published_sizes():
    assert matrix_parameters(FAMILY["Llama 2 7B"].config) == 6_738_415_616 - 32000 * 4096 - 65 * 4096
    assert flops_per_token(FAMILY["Llama 2 7B"].config, 4096) == pytest.approx(6 * 6.607e9 + 6.44e9, rel=1e-3)


def test_gpus_by_their_names():
    assert device_reported("NVIDIA A100-SXM4-80GB").title == "A100 80GB"
    assert device_reported("NVIDIA A100-SXM4-40GB").title == "A100 40GB"
    assert device_reported("NVIDIA A100-SXM-64GB").title == "A100 64GB"
    assert device_reported("NVIDIA H100 80GB HBM3").flops == 989e12
    assert device_reported("Toaster") is None
    with pytest.raises(OptionError, match="did you mean 'H100 80GB'"):
        device_named("H100 80")
