"""Norms and gated layers that keep only their inputs for the backward pass, and work in blocks that stay in the cache.

A library's RMS norm is six passes over memory and keeps float32 copies; a gated layer keeps what it could
compute again. Which modules can be replaced is found by their structure and proved by numbers: in float64,
values and gradients must equal the module's own. No list of models is needed, and what differs is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import permutations
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Activation = tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor], Tensor]]
"""An activation, and (gradient of its output, its input) → gradient of its input."""

_aten = torch.ops.aten
ACTIVATIONS: tuple[Activation, ...] = (
    (F.silu, _aten.silu_backward),
    (partial(F.gelu, approximate="tanh"), partial(_aten.gelu_backward, approximate="tanh")),
    (F.gelu, _aten.gelu_backward),
    (F.relu, lambda slope, x: _aten.threshold_backward(slope, x, 0)),
)

# Values that are worked on at a time on a CPU: half a megabyte in float32 stays in a core's cache.
_BLOCK_VALUES = 1 << 19
# Largest difference from the module's own, relative: many compute in float32 even where they are given float64.
_EQUAL = 5e-6
_PROBE_SCALES = (1.0, 1.0, 1e-3, 20.0)  # of the rows that are compared: epsilons show where numbers are small


def make_lean(model: nn.Module) -> int:
    """Replace the forward of every norm, activation and gated layer that has an exact leaner form.

    Returns:
        How many modules were replaced; the others run as they are.
    """
    known: dict[tuple[Any, ...], Callable[[nn.Module, Tensor], Tensor] | None] = {}
    replaced = 0
    for module in list(model.modules()):
        if _is_touched(module):
            continue
        signature = _signature(module)
        if signature not in known:
            known[signature] = _lean_form(module)
        form = known[signature]
        if form is not None:
            module.forward = MethodType(_where_it_is_proved(form), module)
            replaced += 1
    return replaced


def _where_it_is_proved(form: Callable[[nn.Module, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The leaner forward for one argument, as it was compared; given more, such as a gate, the module's own.

    A compiler is shown the module's own too, whose operations it joins with those around it.
    """

    def forward(module: nn.Module, *given: Tensor, **named: Any) -> Tensor:
        if torch.compiler.is_compiling() or named or len(given) != 1:
            own: Tensor = type(module).forward(module, *given, **named)
            return own
        return form(module, *given)

    return forward


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, offset: float, rounds_first: bool) -> Tensor:
    """x ÷ √(mean of squares + epsilon) × (weight + offset), in float32 inside (float64 for float64).

    Args:
        x: (…, width).
        weight: (width,).
        rounds_first: the quotient is rounded to the dtype of `x` before it is multiplied, as Llama does.
    """
    if x.device.type == "cuda" and not offset:  # there it is one kernel each way, and keeps as little
        return F.rms_norm(x, weight.shape, weight, epsilon)
    output: Tensor = _RmsNorm.apply(x, weight, epsilon, offset, rounds_first)
    return output


def gated(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    """activation(gate) × up, both (…, width), keeping only the two."""
    output: Tensor = _Gated.apply(gate, up, activation)
    return output


def gated_linear(
    gate: Tensor, up: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation
) -> Tensor:
    """activation(gate) × up through a linear layer; the product is computed again in the backward pass."""
    output: Tensor = _GatedLinear.apply(gate, up, weight, bias, activation)
    return output


class _RmsNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, epsilon: float, offset: float, rounds_first: bool
    ) -> Tensor:
        rows, factor = x.reshape(-1, x.shape[-1]), _factor(weight, offset, rounds_first)
        output = torch.empty_like(rows, memory_format=torch.contiguous_format)
        inverse = torch.empty(len(rows), 1, dtype=_wide(x), device=x.device)
        for block in _blocks(rows):
            wide = rows[block].to(inverse.dtype, copy=True)
            size = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
            inverse[block] = size.square_().div_(rows.shape[1]).add_(epsilon).rsqrt_()
            wide.mul_(inverse[block])
            torch.mul(wide.to(x.dtype) if rounds_first else wide, factor, out=output[block])
        ctx.save_for_backward(x, weight, inverse)
        ctx.settings = (offset, rounds_first)
        return output.view(x.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, inverse = ctx.saved_tensors
        rows, slopes = x.reshape(-1, x.shape[-1]), upstream.reshape(-1, x.shape[-1])
        wide_weight = _factor(weight, ctx.settings[0], False)
        d_rows = torch.empty_like(rows, memory_format=torch.contiguous_format)
        d_weight = torch.zeros(weight.shape, dtype=inverse.dtype, device=x.device)
        for block in _blocks(rows):
            normed = rows[block].to(inverse.dtype, copy=True).mul_(inverse[block])
            slope = slopes[block].to(inverse.dtype, copy=True)
            d_weight += (slope * normed).sum(0)
            slope.mul_(wide_weight)
            along = torch.linalg.vecdot(slope, normed).unsqueeze_(-1).div_(-rows.shape[1])
            d_rows[block] = slope.addcmul_(normed, along).mul_(inverse[block])
        return d_rows.view(x.shape), d_weight.to(weight.dtype), None, None, None


class _Gated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
        ctx.save_for_backward(gate, up)
        ctx.activation = activation
        return _product(gate, up, activation)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        return *_product_backward(upstream, gate, up, ctx.activation)[:2], None


class _GatedLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gate: Tensor, up: Tensor, weight: Tensor, bias: Tensor | None, activation: Activation
    ) -> Tensor:
        ctx.save_for_backward(gate, up, weight)
        ctx.activation = activation
        return F.linear(_product(gate, up, activation), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        gate, up, weight = ctx.saved_tensors
        wants_weight, wants_bias = ctx.needs_input_grad[2:4]
        d_gate, d_up, product = _product_backward(upstream @ weight, gate, up, ctx.activation, wants_weight)
        rows = upstream.reshape(-1, weight.shape[0])
        d_weight = rows.t() @ product.reshape(-1, weight.shape[1]) if product is not None else None
        return d_gate, d_up, d_weight, rows.sum(0) if wants_bias else None, None


def _product(gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    output = torch.empty_like(gate, memory_format=torch.contiguous_format)
    flat_gate, flat_up, flat = (t.reshape(-1, gate.shape[-1]) for t in (gate, up, output))
    for block in _blocks(flat):
        torch.mul(activation[0](flat_gate[block]), flat_up[block], out=flat[block])
    return output


def _product_backward(
    upstream: Tensor, gate: Tensor, up: Tensor, activation: Activation, wants_product: bool = False
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The gradients of both factors, and the product where it is wanted."""
    made = [torch.empty_like(gate, memory_format=torch.contiguous_format) for _ in range(2 + wants_product)]
    slopes, x, y, d_x, d_y, *product = (t.reshape(-1, gate.shape[-1]) for t in (upstream, gate, up, *made))
    for block in _blocks(x):
        active = activation[0](x[block])
        torch.mul(slopes[block], active, out=d_y[block])
        d_x[block] = activation[1](slopes[block] * y[block], x[block])
        if wants_product:
            torch.mul(active, y[block], out=product[0][block])
    return made[0], made[1], made[2] if wants_product else None


def _blocks(rows: Tensor) -> Iterator[slice]:
    """Slices of (rows, width) that fit a core's cache; a GPU takes all at once."""
    each = len(rows) if rows.device.type != "cpu" else max(1, _BLOCK_VALUES // max(1, rows.shape[1]))
    return (slice(start, start + each) for start in range(0, len(rows), max(1, each)))


def _wide(x: Tensor) -> torch.dtype:
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _factor(weight: Tensor, offset: float, rounds_first: bool) -> Tensor:
    factor = weight if rounds_first else weight.to(_wide(weight))
    return factor + offset if offset else factor


# --- finding what can be replaced ---


def _is_touched(module: nn.Module) -> bool:
    """Someone else has put something around this module: it is left alone."""
    return "forward" in vars(module) or bool(module._forward_hooks or module._forward_pre_hooks)


def _signature(module: nn.Module) -> tuple[Any, ...]:
    """Modules with the same are computed alike."""
    settings = tuple(
        (name, value) for name, value in sorted(vars(module).items()) if isinstance(value, int | float | str)
    )
    children = tuple((name, type(child)) for name, child in module.named_children())
    shapes = tuple((name, tuple(p.shape), p.dtype) for name, p in module.named_parameters())
    return (type(module), settings, children, shapes)


def _lean_form(module: nn.Module) -> Callable[[nn.Module, Tensor], Tensor] | None:
    """The leaner forward of this module, if one of the forms equals it."""
    if type(module).__module__.startswith("torch."):
        return None
    for form in (*_norm_forms(module), *_gated_forms(module), *_activation_forms(module)):
        if _equals(module, form):
            return form
    return None


def _norm_forms(module: nn.Module) -> Iterator[Callable[[nn.Module, Tensor], Tensor]]:
    """RMS norms with any epsilon among the module's own numbers; the weight plain or around 0 (Gemma)."""
    parameters = dict(module.named_parameters())
    if list(parameters) != ["weight"] or parameters["weight"].ndim != 1 or list(module.children()):
        return
    small = [v for v in vars(module).values() if isinstance(v, float) and 0 < v < 1e-2]
    for epsilon in dict.fromkeys(small):
        for offset in (0.0, 1.0):
            rounds_first = offset == 0.0 and _rounds_first(module, epsilon)
            yield partial(_norm_forward, epsilon=epsilon, offset=offset, rounds_first=rounds_first)


def _norm_forward(module: Any, x: Tensor, *, epsilon: float, offset: float, rounds_first: bool) -> Tensor:
    return rms_norm(x, module.weight, epsilon, offset, rounds_first)


def _rounds_first(module: Any, epsilon: float) -> bool:
    """Whether the module rounds the quotient before it multiplies: seen in bfloat16."""
    given = {"weight": torch.randn_like(module.weight, dtype=torch.bfloat16)}
    x = _probe(len(given["weight"]), module.weight.device).bfloat16()
    try:
        own = torch.func.functional_call(module, given, (x,))
    except Exception:  # strangers' code; it is left alone then
        return False
    gaps = [
        float((rms_norm(x, given["weight"], epsilon, 0.0, first).float() - own.float()).abs().sum())
        for first in (True, False)
    ]
    return gaps[0] < gaps[1]


def _gated_forms(module: nn.Module) -> Iterator[Callable[[nn.Module, Tensor], Tensor]]:
    """activation(gate) × up through a third layer, whatever the three are called; or gate and up in one (Phi-3)."""
    layers = _linear_layers(module)
    if any(True for name, _ in module.named_parameters() if name.split(".")[0] not in layers):
        return
    for names in permutations(layers) if len(layers) in (2, 3) else ():
        first, second, down = names[0], names[-2], names[-1]
        inner = layers[down].in_features * (1 if len(names) == 3 else 2)
        if layers[first].out_features != inner or layers[second].out_features != inner:
            continue
        for activation in ACTIVATIONS:
            if len(names) == 3:
                yield partial(_gated_forward, gate=first, up=second, down=down, activation=activation)
            else:
                yield partial(_joined_forward, joined=first, down=down, activation=activation)


def _linear_layers(module: nn.Module) -> dict[str, Any]:
    """Linear layers right below a module, adapted ones too."""
    return {name: child for name, child in module.named_children() if hasattr(child, "in_features")}


def _gated_forward(
    module: nn.Module, x: Tensor, *, gate: str, up: str, down: str, activation: Activation
) -> Tensor:
    return _through(getattr(module, down), getattr(module, gate)(x), getattr(module, up)(x), activation)


def _joined_forward(
    module: nn.Module, x: Tensor, *, joined: str, down: str, activation: Activation
) -> Tensor:
    gate, up = getattr(module, joined)(x).chunk(2, dim=-1)
    return _through(getattr(module, down), gate, up, activation)


def _through(down: Any, gate: Tensor, up: Tensor, activation: Activation) -> Tensor:
    """The product through a layer; one with an adapter or hooks is called itself."""
    if type(down) is nn.Linear and not _is_touched(down):
        return gated_linear(gate, up, down.weight, down.bias, activation)
    output: Tensor = down(gated(gate, up, activation))
    return output


def _activation_forms(module: nn.Module) -> Iterator[Callable[[nn.Module, Tensor], Tensor]]:
    """Activations that a library spells out and torch has in one (GPT-2's GELU)."""
    if any(True for _ in module.state_dict()) or list(module.children()):
        return
    for forward, _ in ACTIVATIONS:
        yield partial(_activation_forward, function=forward)


def _activation_forward(module: nn.Module, x: Tensor, *, function: Callable[[Tensor], Tensor]) -> Tensor:
    return function(x)


def _equals(module: nn.Module, form: Callable[[nn.Module, Tensor], Tensor]) -> bool:
    """Whether values and gradients in float64 are the module's own, on random rows of several sizes."""
    if not all(p.is_floating_point() for p in module.parameters()):
        return False
    try:
        own = _values_and_gradients(module)
        module.forward = MethodType(form, module)
        lean = _values_and_gradients(module)
    except Exception:  # strangers' code; it is left alone then
        return False
    finally:
        vars(module).pop("forward", None)
    return all(map(_close, lean, own))


def _values_and_gradients(module: nn.Module) -> list[Tensor]:
    parameters = {
        name: (torch.linspace(0.5, 1.5, len(p), device=p.device) if p.ndim == 1 else p.detach()).double()
        for name, p in module.named_parameters()
    }
    for p in parameters.values():
        p.requires_grad_()
    device = next((p.device for p in parameters.values()), torch.device("cpu"))
    x = _probe(_width(module), device).requires_grad_()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []), torch.enable_grad():
        torch.manual_seed(0)  # what drops at random drops the same in both, or is seen
        output = torch.func.functional_call(module, parameters, (x,))
        slope = torch.linspace(-1, 1, output.numel(), device=device).view(output.shape).to(output.dtype)
        return [output, *torch.autograd.grad(output, [x, *parameters.values()], slope)]


def _width(module: nn.Module) -> int:
    """Of the rows that a module takes."""
    layers = list(_linear_layers(module).values())
    if len(layers) == 2 and layers[0].out_features != 2 * layers[1].in_features:
        layers.reverse()
    if layers:  # two of three read the input
        return int(
            sorted(layer.in_features for layer in layers)[1] if len(layers) > 2 else layers[0].in_features
        )
    return len(next(module.parameters(), torch.empty(64)))


def _probe(width: int, device: torch.device) -> Tensor:
    """(1, rows, width) float64, always the same."""
    random = torch.Generator().manual_seed(0)
    rows = torch.randn(len(_PROBE_SCALES), width, generator=random, dtype=torch.float64)
    return (rows * torch.tensor(_PROBE_SCALES, dtype=torch.float64)[:, None])[None].to(device)


def _close(got: Tensor, expected: Tensor) -> bool:
    """Equal to rounding in every row."""
    if got.shape != expected.shape:
        return False
    size = expected.abs().amax(-1, keepdim=True).clamp_min(1e-12)
    return bool(((got - expected).abs() <= _EQUAL * size).all())
