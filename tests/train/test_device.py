"""What a GPU will be asked, as far as a machine without one can tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from tests.train.test_masters import BF16, FP32, attempt, folder, learner_of, rows
from tuition.batch import make_packs
from tuition.train import attention, attention_varlen, cross_entropy
from tuition.train.compiled import compile_layers, pays
from tuition.train.cross_entropy import TokenLoss
from tuition.train.learner import Learner
from tuition.train.loss import step_loss, token_mean
from tuition.train.masters import Masters, _shrunk
from tuition.train.memory import is_out_of_memory
from tuition.train.model import LoadedModel
from tuition.train.pieces import pieces_of
from tuition.train.selfcheck import PathCheck
from tuition.train.storage import Code, join_bits, split_bits
from tuition.train.trial import tokens_at_once

__all__ = ["folder"]  # a fixture

NOWHERE = torch.device("meta")  # has no numbers: whoever asks for one raises


def kernel(q: Tensor, k: Tensor, v: Tensor, *ends: object, **how: object) -> Tensor:
    """Stands for a flash kernel where only shapes exist."""
    return q + (k.sum() + v.sum())


@pytest.mark.parametrize("shared", [True, False])
def test_a_pass_and_the_norms_of_its_gradients_never_wait_for_a_number(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    shared: bool,
) -> None:
    learner = learner_of(folder, BF16)
    monkeypatch.setattr(attention_varlen, "kernel_for", lambda *_, **how: kernel)
    model = learner.model.to(NOWHERE)
    model.get_input_embeddings().padding_idx = None  # the one that waits: its gradient leaves a token out
    masters = Masters(model, BF16)
    loaded = LoadedModel(model, NOWHERE, BF16, packed=True, shares=shared, head=learner.head)
    examples = [*rows(), *rows()]
    (pack,) = make_packs(examples, token_mean, max_examples=None, token_budget=200, share_prefixes=shared)
    assert shared == bool(pack.shared_tokens)
    for _ in range(2):
        step_loss(loaded, pack, 9.0).backward()
    assert len(masters.norms()) == len(masters.parameters)


def test_the_trial_of_updates_of_one_pass_adds_no_gradients_up(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: set[torch.dtype] = set()
    norms = Masters.norms

    def looked_at(masters: Masters) -> list[Tensor]:
        seen.update(p.main_grad.dtype for p in masters.working.values() if p.main_grad is not None)
        return norms(masters)

    monkeypatch.setattr(Masters, "norms", looked_at)
    attempt(learner_of(folder, BF16), rows())
    assert seen == {BF16}
    attempt(learner_of(folder, BF16), rows(tuple(range(60, 68))))
    assert seen == {BF16, torch.float32}


def test_a_flash_kernel_that_is_installed_and_fails_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def sums(q: Tensor, k: Tensor, v: Tensor, *_: object, scale: float, window: int | None) -> Tensor:
        return scale * q + (k + v).mean()

    def fails(*_: object, **how: object) -> Tensor:
        raise RuntimeError("FlashAttention only supports Hopper GPUs or newer.")

    def fails_backward(q: Tensor, k: Tensor, *_: object, **how: object) -> Tensor:
        return q.detach() + k.mean()

    installed: dict[str, Any] = {"first": fails, "second": fails_backward, "third": sums}
    monkeypatch.setattr(attention_varlen, "installed_kernels", lambda: installed)
    find = attention_varlen.working_kernel.__wrapped__
    assert find(torch.device("cpu")) == ("third", sums)
    installed.pop("third")
    assert find(torch.device("cpu")) is None


def test_pieces_are_few_where_each_operation_must_be_asked_of_a_device() -> None:
    assert len(pieces_of(torch.empty(1 << 13, 1 << 13))) == 64
    assert len(pieces_of(torch.empty(1 << 13, 1 << 13, device=NOWHERE))) == 1
    assert len(pieces_of(torch.empty(1 << 14, 1 << 14, device=NOWHERE))) == 4
    assert pieces_of(torch.empty((), device=NOWHERE)) == [slice(0, 1)]


@pytest.mark.parametrize(
    "words",
    [
        "CUDA error: out of memory",
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    ],
)
def test_libraries_that_find_no_memory_are_understood(words: str) -> None:
    assert is_out_of_memory(RuntimeError(words))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))


@pytest.fixture
def alone() -> Iterator[None]:
    """What is compiled is compiled for all that follows."""
    yield
    ALL_ATTENTION_FUNCTIONS.register(attention.NAME, attention.segment_attention)
    torch._dynamo.reset()


@pytest.mark.usefixtures("alone")
def test_layers_are_compiled_once_for_passes_of_all_lengths_and_change_no_gradient(folder: Path) -> None:
    def passes() -> list[dict[str, Tensor]]:
        return [gradients_of(learner, length, share) for length in (9, 40, 23) for share in (True, False)]

    learner = learner_of(folder, FP32)
    learner.lanes, plain = 1, passes()
    path = compile_layers(learner, PathCheck(True, "", how="packed"), rows(), backend="eager")
    assert path.how == "packed; compiled"
    attention.register()  # as another model does that is loaded meanwhile
    made = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    compiled = passes()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == made > 0
    for before, after in zip(plain, compiled, strict=True):
        for name, gradient in before.items():
            torch.testing.assert_close(after[name], gradient, rtol=1e-4, atol=1e-6)


def gradients_of(learner: Learner, length: int, share: bool) -> dict[str, Tensor]:
    """Of a pass over three examples, two of which begin alike where `share` says so."""
    first, second = rows((length, length + 20))
    examples = [first, replace(second, ids=np.concatenate([first.ids, second.ids[length:]])), first]
    (pack,) = make_packs(
        examples[: 3 if share else 2], token_mean, max_examples=None, token_budget=999, share_prefixes=share
    )
    learner.masters.forget_gradients()
    step_loss(learner, pack, 7.0).backward()
    return {name: gradient.clone() for name, gradient in learner.masters.gather().items()}


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("fault", ["it is not there", "another result"])
def test_what_compiles_wrongly_or_not_at_all_is_not_used_and_the_run_says_why(
    folder: Path, fault: str
) -> None:
    learner = learner_of(folder, FP32)
    learner.lanes, plain = 1, gradients_of(learner, 20, True)

    def doubles(graph: torch.fx.GraphModule, _: list[Tensor]) -> Callable[..., Any]:
        def run(*given: Any) -> tuple[Any, ...]:
            return tuple(2 * made if isinstance(made, Tensor) else made for made in graph(*given))

        return run

    backend = "no compiler" if fault == "it is not there" else doubles
    path = compile_layers(learner, PathCheck(True, ""), rows(), backend=backend)
    assert path.how.startswith("; not compiled, because ")
    assert ("InvalidBackend" if fault == "it is not there" else "losses differ by") in path.how
    assert not any("forward" in vars(layer) for layer in learner.model.model.layers)
    after = gradients_of(learner, 20, True)
    assert all(torch.equal(after[name], plain[name]) for name in plain)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("by_probability", [True, False])
@pytest.mark.parametrize(("scale", "softcap"), [(1.0, None), (0.5, None), (1.0, 3.0)])
def test_a_compilers_chunk_of_the_loss_is_the_other_ones(
    smoothing: float, by_probability: bool, scale: float, softcap: float | None
) -> None:
    torch.manual_seed(0)
    logits, targets = 5 * torch.randn(7, 50), torch.randint(50, (7,))
    cost = TokenLoss(smoothing, by_probability)
    found = []
    for chunk in (cross_entropy._losses_and_slopes, cross_entropy.chunk_at_once):
        mine, losses = logits.clone(), torch.empty(7)
        more = {"slopes": True} if chunk is cross_entropy._losses_and_slopes else {}
        chunk(
            mine,
            targets,
            torch.rand(7, generator=torch.Generator().manual_seed(1)),
            losses,
            scale,
            softcap,
            cost,
            **more,
        )
        found.append((losses, mine))
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)


def test_a_run_chooses_by_its_device_and_says_what_is_in_the_way_of_compiling(folder: Path) -> None:
    assert (tokens_at_once("cuda"), tokens_at_once("cpu")) == (32768, 4096)
    assert pays(torch.device("cuda"), 100)
    assert not pays(torch.device("cuda"), 99)
    assert not pays(torch.device("cpu"), 1000)
    learner = learner_of(folder, FP32)
    learner.lanes = 2
    assert "passes go side by side" in compile_layers(learner, PathCheck(True, ""), rows()).how
    learner.packed = False
    assert "examples go one at a time" in compile_layers(learner, PathCheck(False, ""), rows()).how


@pytest.mark.usefixtures("alone")
def test_compiled_halves_are_the_same_to_the_bit_or_are_not_used(folder: Path) -> None:
    assert Code(split_bits, join_bits).is_right(torch.device("cpu"))
    assert not Code(lambda *bits: split_bits(*bits) & False, join_bits).is_right(torch.device("cpu"))
    learner = learner_of(folder, BF16, masters="split")
    assert learner.masters.compile("eager", learner.device) == ""
    assert all(master.halves.code for master in learner.masters.parameters.values())  # type: ignore[attr-defined]


def test_a_gradient_is_shrunk_by_one_operation_where_it_is_not_on_a_cpu() -> None:
    for shape in ((), (3,), (2, 3)):
        made = _shrunk(torch.ones(shape, dtype=BF16, device=NOWHERE), 0.5)
        assert (made.shape, made.dtype) == (shape, torch.float32)
    third = torch.full((2,), 1 / 3, dtype=BF16)
    assert torch.equal(_shrunk(third, 0.3), third.float() * torch.tensor(0.3))
