"""The embedded default: a tiny pretrained model and the demonstrations that teach it to answer.

Only paths stand here; `python -m tuition.starter.build --to DIR` makes the files again. Never imports torch.
"""

from collections.abc import Sequence
from pathlib import Path

_HERE = Path(__file__).resolve().parent

BASE = _HERE / "base"  # a transformers model folder: pretrained, not yet tuned
DEMONSTRATIONS = _HERE / "demonstrations.jsonl"  # what to tune on
HELDOUT = _HERE / "heldout.jsonl"  # questions about entities that no demonstration mentions
GENERAL = _HERE / "general.txt"  # declarative sentences, one a line, to see what tuning forgets


def model_path(name: str) -> str:
    """The folder that the model name `starter` stands for; any other name as it is."""
    return str(BASE) if name == "starter" and not Path(name).exists() else name


def general_path(data: str | Sequence[str]) -> str | Sequence[str]:
    """The sentences that the name `starter` stands for among general text; any other data as it is."""
    return str(GENERAL) if data in ("starter", ["starter"], ("starter",)) else data


def display_name(model: str) -> str:
    """The name a person knows a model by."""
    return "starter" if model == str(BASE) else model
