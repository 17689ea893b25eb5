"""What a run will take, calculated and not measured: memory by part, bytes on the wire, time. Nothing is loaded.

The formulae stand in docs/scale.md. `benchmarks.plan` compares the memory with measured peaks.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch

from tuition.errors import UserError
from tuition.recipe import Recipe
from tuition.train.cross_entropy import BLOCK_VALUES, CHUNK_BYTES
from tuition.train.distributed import Ranks
from tuition.train.masters import HANDED_OVER_BYTES
from tuition.train.optimizer import MOMENT_BYTES
from tuition.train.trial import tokens_at_once

_REACHED = 0.4  # of the matrix rate: what published single-GPU figures reach
_HIDDEN = 0.5  # of the time on the wire that goes by while something is computed
_QUERIES_AT_ONCE = 128  # of attention on a CPU
_FOUR_BITS = 0.516  # bytes a number in NF4 with rounded scales
_SHARE_FOR_US = 0.9  # of a GPU's memory: its own runtime and fragments need some


@dataclass(frozen=True, slots=True)
class Gpu:
    """A kind of GPU, by its data sheet: memory and rates a second."""

    bytes: float
    flops: float
    links: float
    network: float


# Bytes of memory; dense bfloat16 operations; bytes within a machine and between machines, each way.
GPUS: dict[str, Gpu] = {
    "a100": Gpu(80e9, 312e12, 300e9, 25e9),
    "h100": Gpu(80e9, 989e12, 450e9, 50e9),
    "h200": Gpu(141e9, 989e12, 450e9, 50e9),
    "b200": Gpu(180e9, 2250e12, 900e9, 50e9),
    "l40s": Gpu(48e9, 362e12, 32e9, 12e9),
    "4090": Gpu(24e9, 165e12, 25e9, 12e9),
}
_GPUS_A_MACHINE = 8


@dataclass(frozen=True, slots=True)
class Shape:
    """A decoder, counted.

    Attributes:
        width: of the hidden states.
        queries: width of all queries of a token together; keys: of its keys, and of its values.
        inner: width inside the gated layer.
        weights: all of them, tied ones once.
        in_layers: those of the decoder's layers.
        head: those that a token is multiplied with to give logits; a table of so many is read for its input.
        adapter: weights of a LoRA of rank 1 on every linear layer of the decoder.
        heads: of attention.
    """

    layers: int
    width: int
    queries: int
    keys: int
    inner: int
    vocabulary: int
    weights: int
    in_layers: int
    head: int
    adapter: int
    heads: int


@dataclass(frozen=True, slots=True)
class Budget:
    """What a rank needs and does.

    Attributes:
        parts: bytes of memory, by what they are for.
        wire_bytes: sent by a rank in an update.
        seconds: of an update; None where the GPU is not known.
        tokens_per_second: of all ranks together.
        pass_tokens: the most in a pass: as many as training tries first, halved until they fit, as training does.
        room: bytes that may be taken; None where the GPU is not known.
        advice: settings to change where it does not fit.
    """

    parts: dict[str, int]
    wire_bytes: int
    seconds: float | None
    tokens_per_second: float | None
    pass_tokens: int
    room: int | None
    advice: tuple[str, ...]

    @property
    def bytes(self) -> int:
        """All parts together."""
        return sum(self.parts.values())

    @property
    def fits(self) -> bool:
        """Whether there is room, as far as it is known."""
        return self.room is None or self.bytes <= self.room


def shape_of(config: Any) -> Shape:
    """Count a model that its configuration describes, on PyTorch's meta device.

    Raises:
        UserError: it is no decoder of the common kind.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    text = config.get_text_config()
    try:
        width, heads = int(text.hidden_size), int(text.num_attention_heads)
        layers = int(text.num_hidden_layers)
    except AttributeError:
        raise UserError(
            f"{type(model).__name__} is no decoder whose memory is calculated here",
            where="model",
            next_step="`tuition train --dry-run` measures it on this machine",
        ) from None
    size = int(getattr(text, "head_dim", None) or width // heads)
    head = model.get_output_embeddings()
    kinds = ("Linear", "Conv1D")  # GPT-2 calls its linear layers so
    linear = [m for m in model.modules() if type(m).__name__ in kinds and m is not head]
    in_layers = sum(p.numel() for name, p in model.named_parameters() if ".layers." in name or ".h." in name)
    return Shape(
        layers=layers,
        width=width,
        queries=heads * size,
        keys=int(getattr(text, "num_key_value_heads", None) or heads) * size,
        inner=int(getattr(text, "intermediate_size", None) or 4 * width),
        vocabulary=int(text.vocab_size),
        weights=sum(p.numel() for p in model.parameters()),
        in_layers=in_layers,
        head=int(text.vocab_size) * width,
        adapter=sum(sum(m.weight.shape) for m in linear),
        heads=heads,
    )


def budget_of(
    shape: Shape,
    recipe: Recipe,
    *,
    ranks: int,
    gpu: str | None,
    tokens_per_update: float,
    learned_share: float,
    mean_length: float,
    kind: Literal["cpu", "cuda"] = "cuda",
) -> Budget:
    """What a rank of a run needs.

    Args:
        ranks: how many there are, eight on a machine.
        gpu: a row of `GPUS`; None: memory and the wire alone.
        tokens_per_update: over all ranks.
        learned_share: of the tokens that are learned.
        mean_length: of an example, weighted by its tokens.
    """
    card = None if gpu is None else GPUS[gpu]
    room = None if card is None else int(_SHARE_FOR_US * card.bytes)
    a_rank = tokens_per_update / ranks
    tried = [
        (_memory(shape, recipe, ranks, load), load)
        for load in _passes_tried(recipe, a_rank, learned_share, mean_length, kind)
    ]
    fitting = (one for one in tried if room is None or sum(one[0].values()) <= room)
    parts, load = next(fitting, min(tried, key=lambda one: sum(one[0].values())))
    wire, pass_tokens = _wire(shape, recipe, ranks, passes=max(1.0, a_rank / load.tokens)), int(load.tokens)
    if card is None or room is None:
        return Budget(parts, wire, None, None, pass_tokens, None, ())
    work = flops_per_token(shape, recipe, learned_share, mean_length) * tokens_per_update / ranks
    rate = card.links if ranks <= _GPUS_A_MACHINE else card.network
    seconds = work / (_REACHED * card.flops) + (1 - _HIDDEN) * wire / rate
    advice = _advice(recipe, ranks) if sum(parts.values()) > room else ()
    return Budget(parts, wire, seconds, tokens_per_update / seconds, pass_tokens, room, advice)


def learning(shape: Shape, recipe: Recipe) -> int:
    """Weights that learn; patterns that freeze some are not looked at."""
    return shape.weights if not recipe.adapted else recipe.lora_r * shape.adapter


def flops_per_token(shape: Shape, recipe: Recipe, learned_share: float, mean_length: float) -> float:
    """Operations of a token, forward and backward."""
    full = not recipe.adapted
    body = (6 if full else 4) * shape.in_layers + (0 if full else 6 * learning(shape, recipe))
    head = (6 if full else 4) * shape.head * learned_share
    attention = 6.0 * shape.layers * shape.queries * mean_length
    again = 2 * shape.in_layers if recipe.activation_checkpointing == "on" else 0
    return body + head + attention + again


@dataclass(frozen=True, slots=True)
class Pass:
    """One forward and backward pass of a rank.

    Attributes:
        tokens: in it, of which `learned_share` is learned.
        mean_length: of an example, weighted by its tokens.
        one_of_several: of an update, whose gradients are then summed in float32.
    """

    tokens: float
    learned_share: float
    mean_length: float
    one_of_several: bool
    kind: Literal["cpu", "cuda"]


def _passes_tried(
    recipe: Recipe, tokens: float, learned_share: float, mean_length: float, kind: Literal["cpu", "cuda"]
) -> Iterator[Pass]:
    """The passes that training tries, the largest first, down to one example.

    Args:
        tokens: of a rank in an update.
    """
    most = recipe.micro_batch_tokens
    in_a_pass = min(float(tokens_at_once(kind) if most == "auto" else most), tokens)
    yield Pass(in_a_pass, learned_share, mean_length, in_a_pass < tokens, kind)
    while (in_a_pass := in_a_pass / 2) >= mean_length:
        yield Pass(in_a_pass, learned_share, mean_length, True, kind)


def _memory(shape: Shape, recipe: Recipe, ranks: int, load: Pass) -> dict[str, int]:
    """Bytes of a rank, by what they are for."""
    parts = Ranks(world=ranks, local_world=min(ranks, _GPUS_A_MACHINE), layout=recipe.parallel).parts
    learned, wide = learning(shape, recipe), 4 if recipe.dtype == "float32" else 2
    a_master = 2 if recipe.masters == "split" and wide == 2 else 4
    activations = int(load.tokens * _activation_bytes(shape, recipe, wide, load))
    if parts > 1:
        one_layer = shape.in_layers // shape.layers + shape.head  # whole while it is at work
        computed_with = wide * one_layer
        gradients = int(4 * learned / parts) + (0 if recipe.adapted else 4 * one_layer)
    else:
        computed_with = 2 * learned if wide == 2 else 0
        gradients = _gradient_bytes(shape, recipe, wide, load, activations)
    return {
        "base, frozen": int(_base_bytes(shape, recipe, wide) / parts),
        "weights computed with": computed_with,
        "masters": int(a_master * learned / parts),
        "gradients": gradients,
        "moments": int(MOMENT_BYTES[recipe.optimizer] * learned / parts),
        "activations": activations,
        "loss": _loss_bytes(shape, load, wide),
    }


def _base_bytes(shape: Shape, recipe: Recipe, wide: int) -> float:
    """The weights under an adapter, which do not learn."""
    if recipe.method == "qlora":
        return _FOUR_BITS * shape.in_layers + wide * (shape.weights - shape.in_layers)
    return float(wide * shape.weights) if recipe.adapted else 0.0


def _activation_bytes(shape: Shape, recipe: Recipe, wide: int, load: Pass) -> float:
    """Kept of a token for the backward pass, and what the backward pass of one layer works with.

    Of a layer: the residual stream and its norm before attention and before the gated layer, with a float32 number
    each; queries, keys and values; what attention gives; gate and up, and with an adapter their product. A CPU keeps
    attention's weights too, which a block of queries has for all keys up to its end; a GPU a float32 number a head.
    """
    inner = (3 if recipe.adapted else 2) * shape.inner
    a_layer: float = wide * (4 * shape.width + 2 * shape.queries + 2 * shape.keys + inner) + 8
    seen = (load.mean_length + min(_QUERIES_AT_ONCE, load.mean_length)) / 2
    a_layer += shape.heads * (wide * seen if load.kind == "cpu" else 4)
    working = 4 * wide * shape.inner  # slopes of the product, of gate and of up, and the product again
    if recipe.activation_checkpointing == "on":
        return shape.layers * wide * shape.width + a_layer + working
    return shape.layers * a_layer + working


def _gradient_bytes(shape: Shape, recipe: Recipe, wide: int, load: Pass, activations: int) -> int:
    """Gradients at their peak, beyond the room that activations have left by then.

    A pass frees a layer's activations as it makes its gradients, which take their place. Those of the tables do not:
    no hole that a layer leaves is as large. Where nothing is to be added, gradients stay in the dtype they were made
    in; those of the embedding are summed in float32, while the head's are there.
    """
    if recipe.adapted:
        return 4 * learning(shape, recipe)
    if load.one_of_several:
        return 4 * shape.weights + wide * shape.head
    of_layers, of_tables = wide * shape.in_layers, (4 + wide) * shape.head
    handed_over = min(HANDED_OVER_BYTES[load.kind], 4 * shape.in_layers) if wide == 2 else 0
    return of_tables + max(0, of_layers + handed_over - activations)


def _loss_bytes(shape: Shape, load: Pass, wide: int) -> int:
    """A chunk of logits, the block of them that is in float32, and the states before and behind the last norm."""
    rows = load.tokens * load.learned_share
    states = 2 * wide * shape.width * (load.tokens + rows)
    logits = min(CHUNK_BYTES[load.kind], rows * shape.vocabulary * wide)
    return int(logits + states) + 4 * BLOCK_VALUES[load.kind]


def _wire(shape: Shape, recipe: Recipe, ranks: int, *, passes: float) -> int:
    """Bytes that a rank sends in an update."""
    if ranks == 1:
        return 0
    learned, apart = learning(shape, recipe), (ranks - 1) / ranks
    if recipe.parallel == "ddp":
        return int(2 * 4 * learned * apart)
    wide = 4 if recipe.dtype == "float32" else 2
    held = shape.weights + (learned if recipe.adapted else 0)
    return int(passes * (2 * wide * held + 4 * learned) * apart)


def _advice(recipe: Recipe, ranks: int) -> tuple[str, ...]:
    """What to change where it does not fit, the cheapest first."""
    advice = []
    if recipe.activation_checkpointing != "on":
        advice.append("activation_checkpointing: on (a fifth more time)")
    if ranks > 1 and recipe.parallel == "ddp" and recipe.method in ("full", "lora"):
        advice.append("parallel: fsdp (the same result)")
    if not recipe.adapted and ranks == 1:
        advice.append("optimizer: adamw_8bit (moments in 8 bits)")
    if recipe.method == "full":
        advice.append("method: lora")
    if recipe.method == "lora" and recipe.parallel == "ddp":
        advice.append("method: qlora (the base in 4 bits)")
    return tuple(advice) or ("more GPUs with parallel: fsdp",)
