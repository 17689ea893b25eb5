"""Decoder layers as a compiler makes them, for GPUs: what lies between two matrix products, and from a chunk's logits
to their gradients, is one trip to memory instead of one for each operation.

What is compiled must give the losses and the gradients that it gave before, or the run goes on without and says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from tuition.batch import UNBOUNDED, Pack, make_packs
from tuition.conversation import Rendered
from tuition.errors import one_line
from tuition.train import attention
from tuition.train.cross_entropy import chunk_at_once
from tuition.train.learner import Learner
from tuition.train.loss import step_loss, token_mean
from tuition.train.model import base_of
from tuition.train.selfcheck import PathCheck, drops

# The largest relative differences that another order of operations explains: of the loss, and of a weight's gradient
# in norm, weights with next to no gradient aside.
_LOSS = {torch.float32: 1e-5, torch.bfloat16: 2e-3}
_GRADIENT = {torch.float32: 1e-3, torch.bfloat16: 0.05}
_OF_THE_LARGEST = 1e-2
_WORTH_UPDATES = 100  # of a run: fewer gain no more than the minute that compiling takes


class Untraced:
    """Arguments that compiled code hands on without looking at them.

    Lengths of segments differ from pass to pass, and a compiler that saw them would make new code for each. It is no
    frozen dataclass, because PyTorch 2.11's compiler looks at every field of one.
    """

    def __init__(self, kept: dict[str, Any]) -> None:
        self.kept = kept


def pays(device: torch.device, updates: int) -> bool:
    """Whether compiling is worth its time. On a CPU it gained next to nothing where it was measured."""
    return device.type == "cuda" and updates >= _WORTH_UPDATES


def compile_layers(
    learner: Learner, path: PathCheck, examples: Sequence[Rendered], *, backend: str = "inductor"
) -> PathCheck:
    """Compile the decoder layers and the loss, for passes that learn; others run as before.

    Args:
        path: as it was chosen.
        examples: of the run; two of them are compared on.
        backend: torch.compile's word for who makes the code.

    Returns:
        The path in more words: that it is compiled, or why not.
    """
    layers = _layers_of(base_of(learner.model))
    obstacle = _obstacle(learner, layers)
    if not obstacle:
        (pack,) = make_packs(examples[:2], token_mean, max_examples=None, token_budget=UNBOUNDED)
        obstacle = _compile_and_compare(learner, layers, pack, backend)
    return replace(
        path, how=f"{path.how}; " + (f"not compiled, because {obstacle}" if obstacle else "compiled")
    )


def _compile_and_compare(learner: Learner, layers: Sequence[Any], pack: Pack, backend: str) -> str:
    """Why nothing was changed; empty: all is compiled."""
    before = _loss_and_norms(learner, pack)
    own, head = [vars(layer).get("forward") for layer in layers], learner.head
    try:
        _compile(layers, backend)
        learner.head = head and replace(head, chunk=torch.compile(chunk_at_once, backend=backend))
        fault = _difference(before, _loss_and_norms(learner, pack), learner.dtype)
        fault = fault or learner.masters.compile(backend, learner.device)
    except Exception as error:  # a compiler has no end of ways to fail, and none may end a run
        fault = f"{type(error).__name__}: {one_line(error)}"
    if learner.ranks.any(bool(fault)):
        _take_back(layers, own)
        learner.head = head
        return fault or "another rank could not"
    return ""


def _layers_of(base: Any) -> list[Any]:
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [module for module in base.modules() if isinstance(module, GradientCheckpointingLayer)]


def _obstacle(learner: Learner, layers: Sequence[Any]) -> str:
    if not layers:
        return "its layers are not known"
    if not learner.packed:
        return "examples go one at a time"
    if learner.lanes > 1:
        return "passes go side by side"
    if learner.ranks.sharded:
        return "its weights are laid over the ranks"
    if drops(learner.model) or learner.noise is not None:
        return "what is drawn at random cannot be compared"
    if not all(p.is_floating_point() for p in learner.model.parameters()):
        return "its weights are quantised"
    return ""


def _compile(layers: Sequence[Any], backend: str) -> None:
    import torch._dynamo.config as tracing
    import torch._functorch.config as keeping
    from transformers import AttentionInterface

    # What a gate's product and a norm give is computed again for the backward pass, from what is kept anyway: by
    # itself PyTorch keeps all that a matrix product reads, which is a third more
    keeping.ban_recompute_materialized_backward = False
    tracing.specialize_float = True  # epsilons and scales never change
    AttentionInterface.register(attention.NAME, torch.compiler.disable(_attend))
    for layer in layers:
        layer.forward = _compiled(layer.forward, backend)


def _compiled(forward: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """One code for all layers that are alike and for passes of any length."""
    traced = torch.compile(forward, backend=backend, dynamic=True)

    def run(*args: Any, **kwargs: Any) -> Any:
        if not torch.is_grad_enabled():
            return forward(*args, **kwargs)
        kept = {name: kwargs.pop(name) for name in list(kwargs) if name.startswith("segment")}
        return traced(*args, **kwargs, untraced=Untraced(kept))

    return run


def _take_back(layers: Sequence[Any], own: Sequence[Any]) -> None:
    """Layers run as they are, or by the forward that they had of their own."""
    for layer, forward in zip(layers, own, strict=True):
        vars(layer).pop("forward", None)
        if forward is not None:
            layer.forward = forward


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    *,
    untraced: Untraced | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Packed attention, for layers that are compiled and for those that are not: it is there for all models."""
    kept = untraced.kept if untraced else {}
    return attention.segment_attention(module, query, key, value, mask, **kept, **kwargs)


def _loss_and_norms(learner: Learner, pack: Pack) -> tuple[float, Tensor]:
    """The loss of a pack, and the norm of each weight's gradient."""
    learner.masters.forget_gradients()
    loss = step_loss(learner, pack, pack.weight)
    loss.backward()
    norms = [torch.linalg.vector_norm(gradient.float()) for gradient in learner.masters.gather().values()]
    learner.masters.forget_gradients()
    return loss.item(), torch.stack(norms).cpu()


def _difference(before: tuple[float, Tensor], after: tuple[float, Tensor], dtype: torch.dtype) -> str:
    loss, norms = abs(after[0] / before[0] - 1), before[1].clamp_min(_OF_THE_LARGEST * float(before[1].max()))
    gradient = float(((after[1] - before[1]).abs() / norms).max())
    if loss <= _LOSS[dtype] and gradient <= _GRADIENT[dtype]:
        return ""
    return f"compiled and not, losses differ by {loss:.1e} and gradients by {gradient:.1e}"
