"""The families of models that gradients are compared in, and how far two gradients lie apart."""

from __future__ import annotations

from typing import Any

FAMILIES = ("llama", "qwen3", "mistral", "gemma2", "phi3", "gpt2")


def largest_gap(one: dict[str, Any], other: dict[str, Any]) -> float:
    """The largest difference of two gradients, as a share of the largest of the other's numbers."""
    scale = max(float(g.abs().max()) for g in other.values())
    return max(float((one[name].double() - other[name].double()).abs().max()) for name in other) / scale
