"""A model that learns: what was loaded, with the masters of its weights and the optimizer that moves them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch

from tuition.recipe import OptimizerSettings
from tuition.train.distributed import Ranks, shard
from tuition.train.lanes import replica_of
from tuition.train.loss import Root
from tuition.train.masters import Masters
from tuition.train.model import LoadedModel, base_of
from tuition.train.noise import EmbeddingNoise
from tuition.train.optimizer import OPTIMIZERS, moment_bytes
from tuition.train.storage import SplitMasters


@dataclass(slots=True)
class Learner(LoadedModel):
    """A model with the masters of its weights that learn, and the optimizer that moves them.

    `moment_bytes` is the memory that the optimizer takes at its first step.
    """

    masters: Masters = field(kw_only=True)
    optimizer: torch.optim.Optimizer = field(kw_only=True)
    moment_bytes: int = field(default=0, kw_only=True)
    updating: bool = field(default=False, kw_only=True)
    replicas: list[LoadedModel] = field(default_factory=list, kw_only=True)

    def as_lanes(self) -> list[LoadedModel]:
        """This model, and as many replicas as there are other lanes, whose gradients `masters` adds up."""
        while len(self.replicas) < self.lanes - 1:
            model = replica_of(self.model, self.masters.lend())
            head = self.head and replace(self.head, layer=base_of(model).get_output_embeddings())
            self.replicas.append(
                LoadedModel(model, self.device, self.dtype, self.packed, self.shares, head=head)
            )
        return [self, *self.replicas[: self.lanes - 1]]


def make_learner(
    model: Any, device: torch.device, dtype: torch.dtype, settings: OptimizerSettings
) -> Learner:
    """A model ready to learn: its weights that learn are float32 masters, whatever it computes in."""
    split = settings.masters == "split" and dtype == torch.bfloat16
    masters = (SplitMasters if split else Masters)(model, dtype)
    optimizer = OPTIMIZERS[settings.optimizer](masters.parameters, settings)
    noise = EmbeddingNoise(model, settings.neftune_alpha) if settings.neftune_alpha else None
    return Learner(
        model.train(),
        device,
        dtype,
        noise=noise,
        masters=masters,
        optimizer=optimizer,
        moment_bytes=moment_bytes(settings.optimizer, masters.parameters),
    )


def make_sharded_learner(
    loaded: LoadedModel, ranks: Ranks, device: torch.device, dtype: torch.dtype, settings: OptimizerSettings
) -> Learner:
    """A model that was looked at as a whole, laid over the ranks: its weights are the masters, in parts.

    Args:
        loaded: with its path chosen.
        device: where the parts live; `dtype`: what is computed in.
    """
    root = Root(loaded.model)
    shard(root, base_of(loaded.model), ranks, device, dtype)
    masters = Masters(loaded.model, torch.float32)
    return Learner(
        loaded.model.train(),
        device,
        dtype,
        packed=loaded.packed,
        shares=loaded.shares,
        work=loaded.work,
        head=loaded.head,
        noise=EmbeddingNoise(loaded.model, settings.neftune_alpha) if settings.neftune_alpha else None,
        ranks=ranks,
        root=root,
        masters=masters,
        optimizer=OPTIMIZERS[settings.optimizer](masters.parameters, settings),
        moment_bytes=moment_bytes(settings.optimizer, masters.parameters) // ranks.parts,
    )
