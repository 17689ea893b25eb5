"""Which norms, activations and gated layers of a model have a leaner form: found by structure, proved by numbers.

In float64, values and gradients of a form must equal the module's own. No list of models is needed, and what
differs is left alone. The forms themselves are in `lean_layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import permutations
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from tuition.train.lean_layers import ACTIVATIONS, Activation, gated, gated_linear, rms_norm

Form = Callable[[nn.Module, Tensor], Tensor]
"""A forward that may stand in for a module's own."""

# Largest difference from the module's own, relative: many compute in float32 even where they are given float64.
_EQUAL = 5e-6
_PROBE_SCALES = (1.0, 1.0, 1e-3, 20.0)  # of the rows that are compared: epsilons show where numbers are small


def make_lean(model: nn.Module) -> int:
    """Replace the forward of every norm, activation and gated layer that has an exact leaner form.

    Returns:
        How many modules were replaced; the others run as they are.
    """
    known: dict[tuple[Any, ...], Form | None] = {}
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


def _where_it_is_proved(form: Form) -> Callable[..., Tensor]:
    """The leaner forward for one argument, as it was compared; given more, such as a gate, the module's own.

    A compiler is shown the module's own too, whose operations it joins with those around it.
    """

    def forward(module: nn.Module, *given: Tensor, **named: Any) -> Tensor:
        if torch.compiler.is_compiling() or named or len(given) != 1:
            own: Tensor = type(module).forward(module, *given, **named)
            return own
        return form(module, *given)

    return forward


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


def _lean_form(module: nn.Module) -> Form | None:
    """The leaner forward of this module, if one of the forms equals it."""
    if type(module).__module__.startswith("torch."):
        return None
    for form in (*_norm_forms(module), *_gated_forms(module), *_activation_forms(module)):
        if _equals(module, form):
            return form
    return None


def _norm_forms(module: nn.Module) -> Iterator[Form]:
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


def _gated_forms(module: nn.Module) -> Iterator[Form]:
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


def _activation_forms(module: nn.Module) -> Iterator[Form]:
    """Activations that a library spells out and torch has in one (GPT-2's GELU)."""
    if any(True for _ in module.state_dict()) or list(module.children()):
        return
    for forward, _ in ACTIVATIONS:
        yield partial(_activation_forward, function=forward)


def _activation_forward(module: nn.Module, x: Tensor, *, function: Callable[[Tensor], Tensor]) -> Tensor:
    return function(x)


def _equals(module: nn.Module, form: Form) -> bool:
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
