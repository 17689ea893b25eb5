"""Before step 1: which path is exact on this model?

One example packed among others and the same example alone must give the same losses. Where they do not,
the run goes on one example at a time, which is slower and right.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tuition.batch import make_packs
from tuition.conversation import Rendered
from tuition.train.attention import NAME
from tuition.train.head import Head, find_head
from tuition.train.loss import token_losses, token_mean
from tuition.train.model import LoadedModel, attention_of, base_of, evaluating, one_line, ordinary_attention

# The largest difference of a token's loss that rounding explains, in nats.
_TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 0.15}
# Another example's change may move a loss by no more than the order of additions does.
_LEAK = {torch.float32: 1e-5, torch.bfloat16: 0.02}
_LONGEST_PROBED = 1024


@dataclass(frozen=True, slots=True)
class PathCheck:
    """Which path is exact on this model.

    Attributes:
        packed: several examples share a pass.
        detail: what was compared, and what came of it.
        how: the path in words, for the opening screen.
    """

    packed: bool
    detail: str
    how: str = ""


def check_packing(loaded: LoadedModel, examples: Sequence[Rendered]) -> PathCheck:
    """Compare packed losses with those of each example alone, and change one example to see that no other moves."""
    probed = _probed(examples)
    singles = make_packs(probed, token_mean, max_examples=1, token_budget=10**9)
    with evaluating(loaded.model):
        with attention_of(loaded.model, ordinary_attention(loaded.model)):
            plain = replace(loaded, packed=False, head=None)
            alone = torch.cat([token_losses(plain, single) for single in singles])
        try:
            with attention_of(loaded.model, NAME):
                together = _packed_losses(loaded, probed)
                disturbed = _packed_losses(loaded, [_other_tokens(probed[0]), *probed[1:]])
        except (TypeError, ValueError, NotImplementedError) as error:
            return PathCheck(
                False, f"one example at a time: this model cannot run packed ({one_line(error, 120)})"
            )
    gap = float((together - alone).abs().max())
    first = probed[0].learned_tokens
    leak = float((together[first:] - disturbed[first:]).abs().max()) if len(together) > first else 0.0
    if leak > _LEAK[loaded.dtype]:
        return PathCheck(
            False, f"one example at a time: in a pack, examples reach one another ({leak:.2g} nats)"
        )
    if gap > _TOLERANCE[loaded.dtype]:
        return PathCheck(
            False, f"one example at a time: packed and alone differ by {gap:.2g} nats on this model"
        )
    return PathCheck(True, f"packed = alone on the first examples (largest difference {gap:.1e} nats)")


def _probed(examples: Sequence[Rendered]) -> list[Rendered]:
    """A short, a middling and a long example: long ones reach past attention windows."""
    by_length = sorted((e for e in examples[:256] if len(e) <= _LONGEST_PROBED), key=len) or [
        min(examples, key=len)
    ]
    return [by_length[0], by_length[len(by_length) // 2], by_length[-1]]


def _packed_losses(loaded: LoadedModel, examples: Sequence[Rendered]) -> torch.Tensor:
    pack = make_packs(examples, token_mean, max_examples=None, token_budget=10**9)[0]
    return token_losses(replace(loaded, packed=True), pack)


def _other_tokens(example: Rendered) -> Rendered:
    """The same example with its tokens in reverse order: other content, same places."""
    return replace(example, ids=example.ids[::-1].copy())


def choose_path(loaded: LoadedModel, examples: Sequence[Rendered]) -> PathCheck:
    """Find the head, check packing, and set the model up for the fastest path that is exact."""
    base = base_of(loaded.model)
    shortest = torch.from_numpy(min(examples[:256], key=len).ids.astype(np.int64))[None].to(loaded.device)
    with attention_of(loaded.model, ordinary_attention(loaded.model)):
        head = find_head(base, shortest)
    loaded.head = head if isinstance(head, Head) else None
    check = check_packing(loaded, examples)
    base.set_attn_implementation(NAME if check.packed else ordinary_attention(loaded.model))
    loaded.packed = check.packed
    passes = "examples side by side without padding" if check.packed else "one example a pass"
    loss = "the head at learned tokens only, in chunks"
    if isinstance(head, str):
        loss = f"the model's own head, because {head}"
    return replace(check, how=f"{passes}; {loss}")
