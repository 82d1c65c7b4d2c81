"""Attention within documents, against PyTorch's own with a mask."""

from __future__ import annotations

import itertools

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import library

from camelid.train.attention import BlockAttention, FlexAttention


def positions_of(lengths: list[list[int]]) -> torch.Tensor:
    """(R, T) from the lengths of each row's documents."""
    return torch.stack([torch.cat([torch.arange(length) for length in row]) for row in lengths])


def masked(q, k, v, positions):
    context = positions.shape[1]
    places = torch.arange(context)
    begins = places - positions
    mask = (places[None, None] <= places[None, :, None]) & (places[None, None] >= begins[:, :, None])
    q, k, v = (part.transpose(1, 2) for part in (q, k, v))
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None], enable_gqa=True)
    return mixed.transpose(1, 2)


@st.composite
def rows(draw):
    context = draw(st.sampled_from([1, 7, 128, 130, 300]))
    made = []
    for _ in range(draw(st.integers(1, 3))):
        cuts = sorted(draw(st.sets(st.integers(1, context - 1), max_size=4))) if context > 1 else []
        edges = [0, *cuts, context]
        made.append([stop - start for start, stop in itertools.pairwise(edges)])
    return made


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(rows(), st.sampled_from([(1, 1), (4, 4), (6, 2)]), st.integers(0, 2**31))
def test_blocks_are_masked_attention(lengths, heads, seed):
    torch.manual_seed(seed)
    positions = positions_of(lengths)
    shape = positions.shape
    q = torch.randn(*shape, heads[0], 16, requires_grad=True)
    k, v = (torch.randn(*shape, heads[1], 16, requires_grad=True) for _ in range(2))
    attend = BlockAttention()
    attend.prepare(positions)
    ours, theirs = attend(0)(q, k, v), masked(q, k, v, positions)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    grad = torch.randn_like(ours)
    for our, their in zip(
        torch.autograd.grad(ours, (q, k, v), grad), torch.autograd.grad(theirs, (q, k, v), grad), strict=True
    ):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5)


def test_bf16_is_as_near_as_its_rounding():
    torch.manual_seed(0)
    positions = positions_of([[200, 100], [300]])
    q, k, v = (torch.randn(2, 300, heads, 32) for heads in (4, 2, 2))
    attend = BlockAttention()
    attend.prepare(positions)
    rounded = attend(0)(q.bfloat16(), k.bfloat16(), v.bfloat16())
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), masked(q, k, v, positions), rtol=0.05, atol=0.05)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_operator_is_what_torch_asks_of_one(dtype):
    torch.manual_seed(0)
    begins = torch.arange(130) - positions_of([[60, 70], [130]])
    shapes = (4, 260, 16), (4, 130, 16), (2, 130, 2, 16)
    parts = (torch.randn(shape, dtype=dtype, requires_grad=True) for shape in shapes)
    library.opcheck(torch.ops.camelid.block_attention, (*parts, begins))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("rows", [1, 2])
def test_compiled_gradients_are_the_same(rows):
    """Queries, keys and values as views of one matrix; of one row they stay views, of two they are copied."""
    torch.manual_seed(0)
    attend = BlockAttention()
    attend.prepare(positions_of([[60, 70], [130]][:rows]))
    x, matrix = torch.randn(rows, 130, 32), torch.randn(8 * 16, 32)

    def mixed(x):
        parts = F.linear(x, matrix).view(rows, 130, 8, 16).split([4, 2, 2], 2)
        return attend(0)(*parts).square().sum()

    gradients = []
    for form in (mixed, torch.compile(mixed, dynamic=False)):
        x.requires_grad_().grad = None
        form(x).backward()
        gradients.append(x.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-3)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_flex_is_the_same():
    """What GPUs use, run without compiling and without gradients here."""
    torch.manual_seed(0)
    positions = positions_of([[50, 78], [128]])
    q, k, v = (torch.randn(2, 128, heads, 16) for heads in (4, 2, 2))
    attend = FlexAttention(compiled=False)
    attend.prepare(positions)
    torch.testing.assert_close(attend(0)(q, k, v), masked(q, k, v, positions), rtol=1e-5, atol=1e-5)
