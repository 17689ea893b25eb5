"""How an answer is drawn: the one shape of it for everything that asks a model, greedily or by chance."""

from __future__ import annotations

from dataclasses import dataclass

# Below it nothing but the most likely token would be drawn, and quotients overflow.
LEAST_TEMPERATURE = 1e-5


@dataclass(frozen=True, slots=True)
class Drawing:
    """How answers to one prompt are drawn.

    Attributes:
        max_new_tokens: the longest answer.
        temperature: 0 always takes the most likely token.
        samples: how many; more than one asks for a temperature.
        seed: of the draws; None: another each time.
        top_p: the smallest set of tokens with this probability is drawn from.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    samples: int = 1
    seed: int | None = 0
    top_p: float = 1.0
