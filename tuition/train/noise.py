"""NEFTune (Jain et al. 2023): noise on the embeddings while a model learns, none while it is looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


class EmbeddingNoise:
    """Uniform noise of size alpha / √(tokens × width) on each embedded token of an example.

    Args:
        model: a transformers model, or a peft wrapper of one.
        alpha: 5 to 15 in the paper.
    """

    def __init__(self, model: Any, alpha: float) -> None:
        self.alpha = alpha
        self._lengths: Sequence[int] | None = None
        model.get_input_embeddings().register_forward_hook(self._disturb)

    @contextmanager
    def over(self, lengths: Sequence[int]) -> Iterator[None]:
        """Inside, a row of examples of these lengths is disturbed."""
        self._lengths = lengths
        try:
            yield
        finally:
            self._lengths = None

    def _disturb(self, _: Any, __: Any, embedded: Tensor) -> Tensor | None:
        if self._lengths is None:
            return None
        lengths = torch.tensor(self._lengths, device=embedded.device)
        sizes = self.alpha / (lengths * embedded.shape[-1]).sqrt()
        noise = torch.empty_like(embedded).uniform_(-1, 1)
        return embedded + noise * sizes.repeat_interleave(lengths)[:, None].to(embedded.dtype)
