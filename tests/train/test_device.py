"""What a GPU will be asked, as far as a machine without one can tell."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.train.test_masters import BF16, attempt, folder, learner_of, rows  # noqa: F401  a fixture
from tuition.batch import make_packs
from tuition.train import attention_varlen
from tuition.train.loss import step_loss, token_mean
from tuition.train.masters import Masters
from tuition.train.memory import is_out_of_memory
from tuition.train.model import LoadedModel
from tuition.train.pieces import pieces_of

NOWHERE = torch.device("meta")  # has no numbers: whoever asks for one raises


def kernel(q: Tensor, k: Tensor, v: Tensor, *ends: object, **how: object) -> Tensor:
    """Stands for a flash kernel where only shapes exist."""
    return q + (k.sum() + v.sum())


@pytest.mark.parametrize("shared", [True, False])
def test_a_pass_and_the_norms_of_its_gradients_never_wait_for_a_number(
    folder: Path,  # noqa: F811
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
    folder: Path,  # noqa: F811
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
