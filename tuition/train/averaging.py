"""The mean of several checkpoints' weights, which often generalises better than any of them.

Izmailov et al. 2018 (averaging weights leads to wider optima); Wortsman et al. 2022 (model soups).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from tuition.train.checkpoint import load_weights
from tuition.train.storage import put, whole


def average_weights(folders: Sequence[Path], parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Put the mean of the checkpoints' weights into the parameters; summed in float64.

    Raises:
        UserError: a checkpoint is damaged, or does not fit.
    """
    sums = {name: torch.zeros(p.shape, dtype=torch.float64) for name, p in parameters.items()}
    for folder in folders:
        load_weights(folder, parameters)
        for name, parameter in parameters.items():
            sums[name] += whole(parameter).cpu()
    for name, parameter in parameters.items():
        put(parameter, (sums[name] / len(folders)).float())
