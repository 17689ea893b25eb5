"""Each way of computing packed attention equals the textbook formula in float64."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

from tuition.train import attention, attention_products, attention_varlen
from tuition.train.attention import segment_attention
from tuition.train.attention_products import attention_by_products

HEADS, GROUPS, WIDTH = 6, 2, 8


def textbook(
    q: Tensor, k: Tensor, v: Tensor, window: int | None, softcap: float | None, sinks: Tensor | None = None
) -> Tensor:
    """(tokens, heads, width) each; the last query sees the last key."""
    k, v = (t.repeat_interleave(q.shape[1] // t.shape[1], dim=1) for t in (k, v))
    scores = torch.einsum("qhd,khd->hqk", q, k) * WIDTH**-0.5
    scores = scores if softcap is None else softcap * torch.tanh(scores / softcap)
    back = torch.arange(len(q))[:, None] + len(k) - len(q) - torch.arange(len(k))[None]
    seen = (back >= 0) & (back < (window or len(k)))
    scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is not None:
        scores = torch.cat([scores, sinks[:, None, None].expand(-1, len(q), 1)], dim=-1)
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1)[..., : len(k)], v)


def tensors(tokens: int, keys: int | None = None) -> list[Tensor]:
    torch.manual_seed(0)
    sizes = [(tokens, HEADS), (keys or tokens, GROUPS), (keys or tokens, GROUPS), (tokens, HEADS)]
    return [torch.randn(1, n, heads, WIDTH) for n, heads in sizes]


def compare(ours: Any, theirs: Any, inputs: list[Tensor], slope: Tensor) -> None:
    one = [t.clone().requires_grad_() for t in inputs]
    other = [t.double().requires_grad_() for t in inputs]
    got, expected = ours(*one), theirs(*other)
    torch.testing.assert_close(got.double(), expected, rtol=1e-5, atol=1e-5)
    got.backward(slope)
    expected.backward(slope.double())
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a.grad.double(), b.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("window", [None, 1, 40, 200])
@pytest.mark.parametrize(("tokens", "keys"), [(1, 1), (5, 5), (128, 128), (300, 300), (150, 400)])
def test_products_equal_the_textbook(
    tokens: int, keys: int, window: int | None, softcap: float | None
) -> None:
    *inputs, slope = tensors(tokens, keys)
    compare(
        lambda q, k, v: attention_by_products(
            q, k, v, (tokens,), scale=WIDTH**-0.5, window=window, softcap=softcap
        ),
        lambda q, k, v: textbook(q[0], k[0], v[0], window, softcap)[None],
        inputs,
        slope,
    )


@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("window", [None, 20])
def test_a_sink_takes_its_share_of_every_query_and_learns(window: int | None, softcap: float | None) -> None:
    *inputs, slope = tensors(150, 300)
    compare(
        lambda q, k, v, sinks: attention_by_products(
            q, k, v, (150,), scale=WIDTH**-0.5, window=window, softcap=softcap, sinks=sinks
        ),
        lambda q, k, v, sinks: textbook(q[0], k[0], v[0], window, softcap, sinks)[None],
        [*inputs, torch.randn(HEADS)],
        slope,
    )


def test_dropped_weights_carry_no_gradient_and_the_mean_stays() -> None:
    q, k, v, _ = tensors(60)
    one = torch.ones_like(v).requires_grad_()
    torch.manual_seed(1)
    output = attention_by_products(q, k, one, (60,), scale=1.0, dropout=0.5)
    assert float(output.detach().mean()) == pytest.approx(1.0, abs=0.05)
    output.sum().backward()
    assert float(one.grad.sum()) == pytest.approx(float(output.detach().sum()), rel=1e-5)


LENGTHS = (3, 140, 1, 36)


def by_segment(window: int | None, softcap: float | None = None) -> Any:
    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        parts = zip(*(t[0].split(LENGTHS) for t in (q, k, v)), strict=True)
        return torch.cat([textbook(*part, window, softcap) for part in parts])[None]

    return run


# The tree of the second half of the tests: segment 1 continues 0, 2 continues 1, 3 continues 0
PARENTS = (-1, 0, 1, 0)
CHAINS = ((0,), (0, 1), (0, 1, 2), (0, 3))


def by_chain(window: int | None, softcap: float | None = None) -> Any:
    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries, keys, values = (t[0].split(LENGTHS) for t in (q, k, v))
        return torch.cat(
            [
                textbook(own, *(torch.cat([t[i] for i in chain]) for t in (keys, values)), window, softcap)
                for own, chain in zip(queries, CHAINS, strict=True)
            ]
        )[None]

    return run


def packed(window: int | None, softcap: float | None = None, parents: tuple[int, ...] | None = None) -> Any:
    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        turned = (t.transpose(1, 2) for t in (q, k, v))
        attended, _ = segment_attention(
            torch.nn.Identity(),
            *turned,
            None,
            segment_lengths=LENGTHS,
            segment_parents=parents,
            sliding_window=window,
            softcap=softcap,
        )
        assert attended.is_contiguous()  # some models take views of it
        return attended

    return run


@pytest.mark.parametrize("window", [None, 20])
@pytest.mark.parametrize("products", [True, False])
def test_every_segment_attends_to_itself_alone(
    monkeypatch: pytest.MonkeyPatch, products: bool, window: int | None
) -> None:
    if not products:
        monkeypatch.setattr(attention, "_LONGEST_REACH_BY_PRODUCTS", 0)
    *inputs, slope = tensors(sum(LENGTHS))
    compare(packed(window), by_segment(window), inputs, slope)


@pytest.mark.parametrize("softcap", [None, 0.7])
@pytest.mark.parametrize("window", [None, 20, 140])
@pytest.mark.parametrize("products", [True, False])
def test_a_segment_attends_to_those_it_continues_and_not_to_its_siblings(
    monkeypatch: pytest.MonkeyPatch, products: bool, window: int | None, softcap: float | None
) -> None:
    if not products:
        monkeypatch.setattr(attention, "_LONGEST_REACH_BY_PRODUCTS", 0)
    *inputs, slope = tensors(sum(LENGTHS))
    compare(packed(window, softcap, PARENTS), by_chain(window, softcap), inputs, slope)


@pytest.mark.parametrize("window", [None, 1, 25, 60])
def test_short_siblings_share_a_block_and_see_nothing_of_one_another(window: int | None) -> None:
    """Two pairs of siblings, one under the other, beside roots that share a block and one too long for any."""
    lengths, parents = (50, 20, 30, 7, 9, 40, 44, 300), (-1, 0, 0, 2, 2, -1, -1, -1)
    chains = ((0,), (0, 1), (0, 2), (0, 2, 3), (0, 2, 4), (5,), (6,), (7,))

    def alone(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        queries, keys, values = (t[0].split(lengths) for t in (q, k, v))
        joined = [[torch.cat([t[i] for i in chain]) for t in (keys, values)] for chain in chains]
        parts = zip(queries, joined, strict=True)
        return torch.cat([textbook(own, *seen, window, None) for own, seen in parts])[None]

    blocks = attention_products._blocks(lengths, parents, 0, window, 1, torch.device("cpu"))
    assert [block.rows.stop - block.rows.start for block in blocks] == [50, 50, 16, 84, 150, 150]
    *inputs, slope = tensors(sum(lengths))
    compare(
        lambda q, k, v: attention_by_products(q, k, v, lengths, parents, scale=WIDTH**-0.5, window=window),
        alone,
        inputs,
        slope,
    )


def test_gradients_of_many_descendants_are_added_up_in_float32() -> None:
    """In bfloat16 a sum of halves stops at 128."""
    children = 512
    segments = {
        "segment_lengths": (1,) * (1 + children),
        "segment_parents": (-1, *(0,) * children),
    }
    q, k = (torch.zeros(1, 1, 1 + children, WIDTH, dtype=torch.bfloat16) for _ in range(2))
    v = torch.zeros_like(k).requires_grad_()
    output, _ = segment_attention(torch.nn.Identity(), q, k, v, None, **segments)
    output.sum().backward()
    assert v.grad[0, 0, 0].tolist() == [256.0] * WIDTH  # 1 of its own and 512 halves, rounded once


@pytest.mark.parametrize("way", ["products", "a call a segment", "kernel"])
def test_values_may_be_narrower_than_keys(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """As where keys carry their positions beside the content (DeepSeek)."""

    def kernel(q: Tensor, k: Tensor, v: Tensor, *ends: Any, scale: float, window: int | None) -> Tensor:
        assert q.shape[-1] == k.shape[-1] == v.shape[-1]
        spans = [slice(*span) for span in pairwise(ends[0].tolist())]
        return torch.cat([textbook(q[own], k[own], v[own], window, None) for own in spans])

    if way == "kernel":
        monkeypatch.setattr(attention_varlen, "kernel_for", lambda *args, **kwargs: kernel)
    if way == "a call a segment":
        monkeypatch.setattr(attention, "_LONGEST_REACH_BY_PRODUCTS", 0)
    q, k, v, slope = tensors(sum(LENGTHS))
    compare(packed(None), by_segment(None), [q, k, v[..., :5]], slope[..., :5])


@pytest.mark.parametrize("parents", [None, PARENTS])
@pytest.mark.parametrize("window", [None, 20, 140])
def test_the_variable_length_path_gives_a_kernel_what_flash_attention_expects(
    monkeypatch: pytest.MonkeyPatch, window: int | None, parents: tuple[int, ...] | None
) -> None:
    """The kernel is replaced by one that follows flash attention's conventions to the letter, slowly."""

    class Flash:
        @staticmethod
        def flash_attn_varlen_func(
            q: Tensor, k: Tensor, v: Tensor, cu_q: Tensor, cu_k: Tensor, max_q: int, max_k: int, *,
            softmax_scale: float, causal: bool, window_size: tuple[int, int],
        ) -> Tensor:  # fmt: skip
            assert causal
            assert window_size[1] == 0
            assert cu_q.dtype == cu_k.dtype == torch.int32
            assert max_q == max(LENGTHS)
            assert max_k == max(LENGTHS) if parents is None else 3 + 140 + 1
            assert softmax_scale == WIDTH**-0.5
            seen = None if window_size[0] < 0 else window_size[0] + 1
            spans = zip(
                *([slice(*span) for span in pairwise(cu.tolist())] for cu in (cu_q, cu_k)), strict=True
            )
            return torch.cat([textbook(q[own], k[s], v[s], seen, None) for own, s in spans])

    kernel = attention_varlen._flash_attention(Flash)
    monkeypatch.setattr(attention_varlen, "kernel_for", lambda *args, **kwargs: kernel)
    *inputs, slope = tensors(sum(LENGTHS))
    expected = by_segment(window) if parents is None else by_chain(window)
    compare(packed(window, None, parents), expected, inputs, slope)


def test_torchs_own_kernel_takes_what_it_is_given() -> None:
    """Its operator has a shape function, which runs without a GPU."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.nn.attention import varlen

    kernel = attention_varlen._torch_varlen(varlen)
    with FakeTensorMode():
        q = torch.empty(7, HEADS, 64, dtype=torch.bfloat16, device="cuda")
        ends = torch.empty(3, dtype=torch.int32, device="cuda")
        k = torch.empty(11, GROUPS, 64, dtype=torch.bfloat16, device="cuda")
        assert kernel(q, k, k, ends, ends, 4, 8, scale=0.125, window=3).shape == q.shape


def test_only_what_flash_kernels_compute_exactly_goes_to_them() -> None:
    row = torch.zeros(1, HEADS, 4, WIDTH, dtype=torch.bfloat16)
    assert attention_varlen.kernel_for(row, row, dropout=0.0, softcap=None, sinks=None) is None  # not on CUDA
