"""The chunked loss equals plain autograd over the whole matrix of logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tuition.train import cross_entropy, scratch
from tuition.train.cross_entropy import linear_cross_entropy

ROWS, WIDTH, VOCABULARY, RANK = 37, 12, 101, 3


def problem(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    sizes = {
        "hidden": (ROWS, WIDTH), "weight": (VOCABULARY, WIDTH), "bias": (VOCABULARY,),
        "narrow": (ROWS, RANK), "up": (VOCABULARY, RANK),
    }  # fmt: skip
    made = {name: torch.randn(size).to(dtype) for name, size in sizes.items()}
    return {name: tensor.requires_grad_() for name, tensor in made.items()}


def given() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, VOCABULARY, (ROWS,), generator=generator), torch.rand(ROWS, generator=generator)


def plainly(
    tensors: dict[str, torch.Tensor], names: set[str], scale: float, softcap: float | None
) -> torch.Tensor:
    exact = {name: tensor.double() for name, tensor in tensors.items()}
    targets, coefficients = given()
    logits = exact["hidden"] @ exact["weight"].t()
    if "up" in names:
        logits = logits + exact["narrow"] @ exact["up"].t()
    if "bias" in names:
        logits = logits + exact["bias"]
    logits = logits * scale
    logits = logits if softcap is None else softcap * torch.tanh(logits / softcap)
    return (F.cross_entropy(logits, targets, reduction="none") * coefficients.double()).sum()


def chunked(
    tensors: dict[str, torch.Tensor], names: set[str], scale: float, softcap: float | None
) -> tuple[torch.Tensor, torch.Tensor]:
    targets, coefficients = given()
    terms = [(tensors["hidden"], tensors["weight"])]
    terms += [(tensors["narrow"], tensors["up"])] if "up" in names else []
    bias = tensors["bias"] if "bias" in names else None
    return linear_cross_entropy(terms, bias, targets, coefficients, scale=scale, softcap=softcap)


def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 16 rows and blocks of 3, so that both end within the data."""
    monkeypatch.setattr(cross_entropy, "CHUNK_BYTES", {"cpu": 1})
    monkeypatch.setattr(cross_entropy, "BLOCK_VALUES", {"cpu": 3 * VOCABULARY})


@pytest.mark.parametrize("one_chunk", [True, False])
@pytest.mark.parametrize(
    ("names", "scale", "softcap"),
    [
        (set(), 1.0, None),
        ({"bias"}, 1.0, None),
        (set(), 0.0625, None),
        (set(), 1.0, 2.5),
        ({"up"}, 1.0, None),
        ({"bias", "up"}, 1.5, 4.0),
    ],
)
def test_loss_and_gradients_equal_plain_autograd(
    monkeypatch: pytest.MonkeyPatch, names: set[str], scale: float, softcap: float | None, one_chunk: bool
) -> None:
    if not one_chunk:
        small_chunks(monkeypatch)
    ours, theirs = problem(), problem()
    loss, losses = chunked(ours, names, scale, softcap)
    expected = plainly(theirs, names, scale, softcap)
    (3.0 * loss).backward()
    (3.0 * expected).backward()
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    assert float((losses.double() * given()[1]).sum()) == pytest.approx(float(expected.detach()), rel=1e-6)
    for name in {"hidden", "weight", *names, *({"narrow"} if "up" in names else set())}:
        torch.testing.assert_close(ours[name].grad, theirs[name].grad, rtol=1e-4, atol=1e-6)


def test_bfloat16_gradients_lie_within_rounding_of_the_exact_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    ours, exact = problem(torch.bfloat16), problem(torch.bfloat16)
    chunked(ours, {"bias"}, 1.0, None)[0].backward()
    plainly(exact, {"bias"}, 1.0, None).backward()
    for name in ("hidden", "weight", "bias"):
        gap = (ours[name].grad.double() - exact[name].grad.double()).norm() / exact[name].grad.double().norm()
        assert float(gap) < 2**-6, name


def test_a_token_that_the_model_excludes_has_a_finite_exact_loss() -> None:
    hidden, weight = torch.eye(2) * 100, torch.tensor([[9.0, 0.0], [-9.0, 0.0], [0.0, 0.0]])
    _, losses = linear_cross_entropy([(hidden, weight)], None, torch.tensor([1, 2]))
    assert losses.tolist() == pytest.approx([1800.0, float(torch.tensor(3.0).log())])


def test_scoring_computes_no_gradient_and_leaves_the_buffers_fit_for_training() -> None:
    tensors = problem()
    with torch.inference_mode():
        _, scored = chunked(tensors, set(), 1.0, None)
    loss, losses = chunked(tensors, set(), 1.0, None)
    loss.backward()
    assert torch.equal(scored, losses)


def test_nothing_of_the_size_of_all_logits_is_ever_made(monkeypatch: pytest.MonkeyPatch) -> None:
    small_chunks(monkeypatch)
    made: list[int] = []

    class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                made.append(result.untyped_storage().nbytes() // result.element_size())
            return result

    scratch._BUFFERS.clear()
    with Recorder():
        chunked(problem(), set(), 1.0, None)[0].backward()
    assert max(made) < ROWS * VOCABULARY
