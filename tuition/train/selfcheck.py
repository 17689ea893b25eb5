"""Before step 1: which path is exact on this model?

One example packed among others and the same example alone must give the same losses, and so must prefixes that
examples share, computed once and computed for each. Where they do not, the run goes on without, which is slower
and right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from tuition.batch import SHORTEST_PREFIX, UNBOUNDED, make_packs, packs_on_a_trunk
from tuition.batch.balance import Work, work_of_model
from tuition.conversation import Rendered
from tuition.errors import UserError, one_line
from tuition.train.attention import NAME
from tuition.train.attention_varlen import working_kernel
from tuition.train.head import Head, decoder_of, find_head, in_eval_mode
from tuition.train.lanes import lanes_of, replica_of
from tuition.train.lean import make_lean
from tuition.train.loss import step_loss, token_losses, token_mean
from tuition.train.memory import is_out_of_memory
from tuition.train.model import (
    LoadedModel,
    attention_of,
    base_of,
    context_length,
    evaluating,
    longest_alike,
    ordinary_attention,
)
from tuition.train.quantised import parameters_of
from tuition.train.trunk import over_trunks

# The largest difference of a token's loss that rounding explains, in nats.
_TOLERANCE = {torch.float32: 2e-4, torch.bfloat16: 0.15}
# Another example's change may move no loss. On a CPU the same shapes are added up in the same order, in bfloat16 too,
# and it does not; kernels of a GPU may choose another order where experts get other numbers of tokens. Between the two,
# gradients decide.
_LEAK, _LEAK_OF_ANOTHER_ORDER = 1e-5, 0.02
# What strangers' code raises, memory that runs out among it.
_FAULTS = (TypeError, ValueError, AttributeError, LookupError, RuntimeError)
_LONGEST_PROBED = 1024
_LOOKED_AT = 64  # tokens before a change that no loss may follow
_SHORTEST_FAMILY = 4 * SHORTEST_PREFIX  # tokens of the examples that the check of shared prefixes makes


@dataclass(frozen=True, slots=True)
class PathCheck:
    """Which path is exact on this model.

    Attributes:
        packed: several examples share a pass.
        shares: what they have in common at the start is computed once.
        detail: what was compared, and what came of it.
        how: the path in words, for the opening screen.
    """

    packed: bool
    detail: str
    how: str = ""
    shares: bool = False


class _CannotRun(Exception):
    """What a model said that does not run in this way: it takes no segments, or no more tokens than an example may have."""


@contextmanager
def _running() -> Iterator[None]:
    """A model's own code runs inside, which may raise anything; memory that runs out says nothing about it."""
    try:
        yield
    except _FAULTS as error:
        if is_out_of_memory(error):
            raise
        raise _CannotRun(one_line(error)) from error


def check_packing(loaded: LoadedModel, examples: Sequence[Rendered]) -> PathCheck:
    """Compare packed losses with those of each example alone, and change one example to see that no other moves."""
    probed = _probed(examples)
    singles = make_packs(probed, token_mean, max_examples=1, token_budget=UNBOUNDED)
    with evaluating(loaded.model):
        with attention_of(loaded.model, ordinary_attention(loaded.model)):
            plain = replace(loaded, packed=False, head=None)
            alone = torch.cat([token_losses(plain, single) for single in singles])
        try:
            with _running(), attention_of(loaded.model, NAME):
                together = _packed_losses(loaded, probed)
                disturbed = _packed_losses(loaded, [_other_tokens(probed[0]), *probed[1:]])
        except _CannotRun as error:
            return PathCheck(
                False, f"one example at a time: this model cannot run packed ({one_line(error, 120)})"
            )
    gap = float((together - alone).abs().max())
    first = probed[0].learned_tokens
    leak = float((together[first:] - disturbed[first:]).abs().max()) if len(together) > first else 0.0
    if not leak <= _most_leak(loaded) or (leak > _LEAK and _reach_one_another(loaded, probed)):
        return PathCheck(
            False, f"one example at a time: in a pack, examples reach one another ({leak:.2g} nats)"
        )
    if not gap <= _TOLERANCE[loaded.dtype]:
        return PathCheck(
            False, f"one example at a time: packed and alone differ by {gap:.2g} nats on this model"
        )
    rounded = ", by rounding in bfloat16" if loaded.dtype == torch.bfloat16 else ""
    return PathCheck(
        True, f"packed = alone on the first examples (largest difference {gap:.1e} nats{rounded})"
    )


def _most_leak(loaded: LoadedModel) -> float:
    exact = loaded.dtype == torch.float32 or loaded.device.type == "cpu"
    return _LEAK if exact else _LEAK_OF_ANOTHER_ORDER


def _reach_one_another(loaded: LoadedModel, examples: Sequence[Rendered]) -> bool:
    """Whether losses of the others depend on the first example of a pack: then they have a gradient there, however
    small, which another order of additions has not. Where it cannot be computed, they may."""
    (pack,) = make_packs(examples, token_mean, max_examples=None, token_budget=UNBOUNDED)
    weights = pack.weights.copy()
    weights[pack.rows[: examples[0].learned_tokens]] = 0.0
    seen: list[torch.Tensor] = []

    def learn_embeddings(module: torch.nn.Module, given: Any, embedded: torch.Tensor) -> torch.Tensor:
        seen.append(embedded.detach().requires_grad_())
        return seen[-1]

    hook = base_of(loaded.model).get_input_embeddings().register_forward_hook(learn_embeddings)
    try:
        with in_eval_mode(loaded.model), attention_of(loaded.model, NAME):
            others = step_loss(replace(loaded, packed=True, head=None), replace(pack, weights=weights), 1.0)
            (slopes,) = torch.autograd.grad(others, seen[:1])
    except _FAULTS:
        return True
    finally:
        hook.remove()
    return bool(slopes[:, : pack.lengths[0]].count_nonzero())


def refuse_to_see_ahead(loaded: LoadedModel, examples: Sequence[Rendered]) -> None:
    """Change the end of an example, and leave it off, to see that no loss before it moves.

    Raises:
        UserError: one did: this model would learn to copy the tokens that it is shown, and its loss mean nothing. Or
            the model does not run.
    """
    whole = _probed(examples)[-1]
    middle = len(whole) // 2
    watched = slice(max(1, middle - _LOOKED_AT), middle)
    if watched.start >= middle:
        return
    supervised = np.zeros(len(whole), dtype=np.float32)
    supervised[watched] = 1.0
    start = replace(whole, ids=whole.ids[:middle], supervised=supervised[:middle])
    supervised[-1] = 1.0  # a pass ends before what is learned last
    whole = replace(whole, supervised=supervised)
    tried = [whole, _other_tokens(whole, middle)]
    if loaded.longest_alike is None or len(whole) <= loaded.longest_alike:
        tried.append(start)
    plain = replace(loaded, packed=False, head=None)
    with evaluating(loaded.model), attention_of(loaded.model, ordinary_attention(loaded.model)):
        try:
            with _running():
                first, *others = (
                    token_losses(plain, pack)[pack.rows][: middle - watched.start]
                    for pack in make_packs(tried, token_mean, max_examples=1, token_budget=UNBOUNDED)
                )
        except _CannotRun as error:
            raise _does_not_run(loaded, error) from error
    moved = max(
        float((first - other).abs().max()) for other in others
    )  # NaN is left to step 1, which names rows
    if moved > _TOLERANCE[loaded.dtype]:
        raise UserError(
            f"{type(base_of(loaded.model)).__name__} sees the tokens that it should predict: "
            f"what ends an example moved a loss before it by {moved:.2g} nats",
            where="model",
            next_step="Choose a causal language model, or set is_decoder to true in config.json where it is one",
        )


def _does_not_run(loaded: LoadedModel, error: BaseException) -> UserError:
    """What is most likely to blame: the adapter, the dtype, or the model's own code."""
    where, next_step = "model", "Try another version of transformers, or another model"
    if loaded.model is not base_of(loaded.model):
        where, next_step = "target_modules", "Name layers that this model calls with nothing but their input"
    elif loaded.dtype != torch.float32:
        where, next_step = "dtype", "Set dtype: float32"
    name = type(base_of(loaded.model)).__name__
    return UserError(
        f"{name} does not run as it is set up ({one_line(error)})", where=where, next_step=next_step
    )


def _probed(examples: Sequence[Rendered]) -> list[Rendered]:
    """A short, a middling and a long example: long ones reach past attention windows."""
    by_length = sorted((e for e in examples[:256] if len(e) <= _LONGEST_PROBED), key=len) or [
        min(examples, key=len)
    ]
    return [by_length[0], by_length[len(by_length) // 2], by_length[-1]]


def _packed_losses(
    loaded: LoadedModel, examples: Sequence[Rendered], *, share_prefixes: bool = False
) -> torch.Tensor:
    (pack,) = make_packs(
        examples, token_mean, max_examples=None, token_budget=UNBOUNDED, share_prefixes=share_prefixes
    )
    return token_losses(replace(loaded, packed=True), pack)[pack.rows]


def _other_tokens(example: Rendered, start: int = 0) -> Rendered:
    """The same example with its tokens from `start` in reverse order: other content, same places."""
    return replace(example, ids=np.concatenate([example.ids[:start], example.ids[start:][::-1]]))


def check_sharing(loaded: LoadedModel, examples: Sequence[Rendered]) -> str | None:
    """Compare shared prefixes with the same examples side by side, and change one continuation to see that no other moves.

    Returns:
        Why prefixes cannot be shared on this model; None: they can.
    """
    if loaded.model.training and drops(loaded.model):
        return "with dropout several examples would lose the same values"
    if loaded.noise is not None:
        return "with noise several examples would be disturbed alike"
    family = _family(loaded, _probed(examples)[-1])
    disturbed = [_other_tokens(family[0], len(family[0]) - SHORTEST_PREFIX // 2), *family[1:]]
    with evaluating(loaded.model), attention_of(loaded.model, NAME):
        apart = _packed_losses(loaded, family)
        try:
            with _running():
                shared = _packed_losses(loaded, family, share_prefixes=True)
                beside = _packed_losses(loaded, disturbed, share_prefixes=True)
        except _CannotRun as error:
            return f"this model cannot run them ({one_line(error, 120)})"
    first = family[0].learned_tokens
    gap, leak = float((shared - apart).abs().max()), float((shared - beside)[first:].abs().max())
    if not leak <= _most_leak(loaded):
        return f"continuations of a prefix reach one another ({leak:.2g} nats)"
    if not gap <= _TOLERANCE[loaded.dtype]:
        return f"computed once and computed for each differ by {gap:.2g} nats on this model"
    return None


def check_trunks(loaded: LoadedModel, examples: Sequence[Rendered]) -> bool:
    """Whether what several passes begin with, computed once before them, gives the losses of each example whole."""
    if loaded.ranks.many or decoder_of(base_of(loaded.model)) is None:
        return False  # ranks that hold parts of a model take as many passes each
    family = [_second_half_learned(example) for example in _family(loaded, _probed(examples)[-1])]
    packs = packs_on_a_trunk(family, token_mean)
    with evaluating(loaded.model), attention_of(loaded.model, NAME):
        apart = _packed_losses(loaded, family)
        try:
            with _running(), torch.no_grad():
                losses = over_trunks([replace(loaded, packed=True)], token_losses, packs)
        except _CannotRun:
            return False
    on_a_trunk = torch.cat([found[pack.rows] for found, pack in zip(losses, packs, strict=True)])
    return float((on_a_trunk - apart).abs().max()) <= _TOLERANCE[loaded.dtype]


def _second_half_learned(example: Rendered) -> Rendered:
    supervised = example.supervised.copy()
    supervised[: len(example) // 2 + 1] = 0.0
    return replace(example, supervised=supervised)


def drops(model: torch.nn.Module) -> bool:
    """Whether anything is dropped at random while this model learns."""
    config = base_of(model).config.get_text_config()
    rates = [getattr(config, name, 0.0) for name in ("attention_dropout", "attn_pdrop")]
    rates += [module.p for module in model.modules() if isinstance(module, torch.nn.Dropout)]
    return any(rates)


def _lanes(loaded: LoadedModel) -> int:
    """How many passes can learn at a time: one where they draw random numbers, or where the model changes itself."""
    lanes = lanes_of(loaded.device, sum(p.numel() for p in loaded.model.parameters() if p.requires_grad))
    kinds = [str(getattr(module, "rope_type", "")) for module in loaded.model.modules()]
    # these positions follow the longest pass so far, and each lane would have another
    changes = any(word in kind for kind in kinds for word in ("dynamic", "longrope"))
    floating = all(p.is_floating_point() for p in loaded.model.parameters())
    if lanes == 1 or not loaded.model.training or changes or not floating:
        return 1
    if drops(loaded.model) or loaded.noise is not None:
        return 1
    try:
        replica_of(loaded.model, {})
    except Exception:  # strangers' code; it is left alone then
        return 1
    return lanes


def _work_of(base: Any) -> Work:
    """What an example costs this model: its layers at each token, its head at learned ones."""
    config = base.config.get_text_config()
    width, layers, rows = (
        int(getattr(config, name, 1)) for name in ("hidden_size", "num_hidden_layers", "vocab_size")
    )
    tables = {
        p
        for layer in (base.get_input_embeddings(), base.get_output_embeddings())
        if layer is not None
        for p in layer.parameters()
    }
    body = sum(parameters_of(p) for p in base.parameters() if p not in tables)
    return work_of_model(width, layers, body, width * rows)


def _family(loaded: LoadedModel, example: Rendered) -> list[Rendered]:
    """An example, all of it learned, and two more that leave it after a half and after three quarters."""
    longest = context_length(loaded.model.config) or _SHORTEST_FAMILY
    ids = np.resize(example.ids, max(len(example), min(_SHORTEST_FAMILY, longest)))
    learned = np.ones(len(ids), dtype=np.float32)
    learned[0] = 0.0
    whole = replace(example, ids=ids, supervised=learned)
    return [whole, _other_tokens(whole, len(ids) // 2), _other_tokens(whole, 3 * len(ids) // 4)]


def choose_path(
    loaded: LoadedModel, examples: Sequence[Rendered], *, share_prefixes: bool = True
) -> PathCheck:
    """Find the head, check packing and sharing, and set the model up for the fastest path that is exact.

    Args:
        share_prefixes: False: the recipe has switched it off.

    Raises:
        UserError: the model sees the tokens that it should predict.
    """
    base = base_of(loaded.model)
    make_lean(base)
    loaded.longest_alike = longest_alike(base.config)
    refuse_to_see_ahead(loaded, examples)
    shortest = torch.from_numpy(min(examples[:256], key=len).ids.astype(np.int64))[None].to(loaded.device)
    with attention_of(loaded.model, ordinary_attention(loaded.model)):
        head = find_head(base, shortest)
    loaded.head, loaded.work = head if isinstance(head, Head) else None, _work_of(base)
    check = check_packing(loaded, examples)
    base.set_attn_implementation(NAME if check.packed else ordinary_attention(loaded.model))
    loaded.packed, loaded.shares, loaded.trunks, loaded.lanes = check.packed, False, False, 1
    obstacle = None
    if check.packed:
        obstacle = check_sharing(loaded, examples) if share_prefixes else "share_prefixes is off"
        loaded.shares = obstacle is None
        loaded.trunks = loaded.shares and check_trunks(loaded, examples)
        loaded.lanes = _lanes(loaded)
    detail = check.detail + ("; so are shared prefixes computed once" if loaded.shares else "")
    loss = f"the model's own head, because {head}" if isinstance(head, str) else _BY_HEAD
    how = "; ".join([*_passes_in_words(loaded, obstacle), loss])
    return replace(check, how=how, detail=detail, shares=loaded.shares)


_BY_HEAD = "the head at learned tokens only, in chunks"


def _passes_in_words(loaded: LoadedModel, obstacle: str | None) -> Iterator[str]:
    """How examples are laid in passes, and what runs them.

    Args:
        obstacle: why prefixes are not shared, where they are not.
    """
    if not loaded.packed:
        yield "one example a pass"
        return
    once = f"prefixes that they share computed once {'an update' if loaded.trunks else 'a pass'}"
    prefixes = f"shared prefixes computed for each, because {obstacle}" if obstacle else once
    yield f"examples side by side without padding, {prefixes}"
    if loaded.longest_alike is not None:
        yield f"those of more than {loaded.longest_alike:,} tokens alone, because LongRoPE turns all of a pass alike"
    if loaded.device.type == "cuda" and loaded.dtype == torch.bfloat16:
        kernel = working_kernel(loaded.device)
        yield f"attention by {kernel[0] if kernel else 'a call a segment, as no flash kernel runs here'}"
    if loaded.lanes > 1:
        yield f"up to {loaded.lanes} passes at a time, each on cores of its own"
