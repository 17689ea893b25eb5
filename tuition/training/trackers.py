"""Other people's trackers, told the same figures as metrics.jsonl: TensorBoard, trackio, W&B, MLflow.

None of them reaches the network unless the user's own environment asks for it, none is told a secret, and one
that fails is left out from there on, with a sentence: it never ends a run.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from tuition.errors import UserError
from tuition.recipe import Recipe
from tuition.redact import redact
from tuition.train.folder import RunFolder

_PROJECT = "tuition"
_OF_A_STEP = ("loss", "learning_rate", "grad_norm", "epoch", "tokens_per_second", "learned_tokens")


@dataclass(frozen=True, slots=True)
class Session:
    """What a tracker is told when it is opened.

    Attributes:
        name: of the run.
        id: the same in every sitting of the run, and in no other run.
        folder: the run's.
        settings: the recipe's, without secrets.
        step: updates done before this sitting.
    """

    name: str
    id: str
    folder: Path
    settings: Mapping[str, Any]
    step: int


def session_of(recipe: Recipe, folder: RunFolder, step: int) -> Session:
    """What the trackers of a run that has begun are told."""
    begun = f"{folder.path.resolve()} {folder.read_facts().get('started')}"
    return Session(
        name=folder.name,
        id=f"{folder.name}-{hashlib.sha256(begun.encode()).hexdigest()[:8]}",
        folder=folder.path,
        settings={key: without_secrets(value) for key, value in recipe.model_dump(mode="json").items()},
        step=step,
    )


class Tracker(Protocol):
    """What is asked of one of them."""

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Take figures by name, after an update."""

    def finish(self) -> None:
        """Bring everything to the disk, or where the user sends it."""


class Trackers:
    """All trackers of a run; with none, nothing happens.

    Args:
        names: keys of `TRACKERS`.
        session: what each is told.
        note: told when one fails; once for each.
    """

    def __init__(self, names: Sequence[str], session: Session, note: Callable[[str], None]) -> None:
        self._note = note
        self._open: dict[str, Tracker] = {}
        for name in names:
            opened = self._guarded(name, partial(TRACKERS[name].open, session))
            if opened is not None:
                self._open[name] = opened

    def step(self, line: Mapping[str, Any]) -> None:
        """An update, as it stands in metrics.jsonl."""
        self._log({f"train/{key}": line[key] for key in _OF_A_STEP}, int(line["step"]))

    def evaluation(self, figures: Mapping[str, float], step: int) -> None:
        """Held-out figures by name."""
        self._log({f"eval/{name}": value for name, value in figures.items()}, step)

    def finish(self) -> None:
        """The run is over, or interrupted."""
        for name, tracker in list(self._open.items()):
            self._guarded(name, tracker.finish)
        self._open = {}

    def _log(self, figures: dict[str, float], step: int) -> None:
        for name, tracker in list(self._open.items()):
            self._guarded(name, partial(tracker.log, figures, step))

    def _guarded(self, name: str, call: Callable[[], Any]) -> Any:
        try:
            with redirect_stdout(sys.stderr):  # they talk, and results go to stdout
                return call()
        except Exception as error:  # whatever it is: the run is worth more than its picture
            self._open.pop(name, None)
            reason = redact(" ".join(f"{type(error).__name__}: {error}".split())[:300])
            self._note(f"{name} failed and is told no more ({reason}); metrics.jsonl has every figure")
            return None


def refuse_missing(names: Sequence[str]) -> None:
    """Before anything is loaded: every tracker that was asked for is installed.

    Raises:
        UserError: naming each that is not, and how to install it.
    """
    missing = [name for name in names if importlib.util.find_spec(TRACKERS[name].package) is None]
    if missing:
        packages = ", ".join(TRACKERS[name].package for name in missing)
        raise UserError(
            f"{packages} is not installed",
            where=f"report_to: {', '.join(missing)}",
            next_step=f'Install it: pip install "tuition[{",".join(missing)}]", or leave report_to out',
        )


def without_secrets(value: Any) -> Any:
    """A setting as it may be shown to others."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, list | tuple):
        return [without_secrets(item) for item in value]
    return value


class _TensorBoard:
    """Event files in the run folder: `tensorboard --logdir RUN`."""

    def __init__(self, session: Session) -> None:
        from torch.utils.tensorboard import SummaryWriter

        # figures of updates that are taken again replace those of the sitting that was cut off
        self._writer = SummaryWriter(str(session.folder / "tensorboard"), purge_step=session.step + 1)
        self._writer.add_text("recipe", "\n".join(f"    {k}: {v}" for k, v in session.settings.items()))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def finish(self) -> None:
        self._writer.close()


class _Trackio:
    """trackio's own database on this machine; a Space only where TRACKIO_SPACE_ID names one."""

    def __init__(self, session: Session) -> None:
        import trackio

        self._trackio = trackio
        trackio.init(
            project=_PROJECT,
            name=session.id,
            config=dict(session.settings),
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._trackio.log(dict(figures), step=step)

    def finish(self) -> None:
        self._trackio.finish()


class _WandB:
    """Files in the run folder that `wandb sync` sends; WANDB_MODE=online sends them at once."""

    def __init__(self, session: Session) -> None:
        import wandb

        mode: Any = os.environ.get("WANDB_MODE", "offline")
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=session.name,
            id=session.id,
            resume="allow",
            dir=os.environ.get("WANDB_DIR", str(session.folder)),
            mode=mode,
            config=dict(session.settings),
            save_code=False,
            # neither the command line nor what is printed: both may name what is nobody else's
            settings=wandb.Settings(
                console="off", disable_git=True, x_disable_meta=True, x_disable_stats=True, silent=True
            ),
        )

    def log(self, figures: Mapping[str, float], step: int) -> None:
        self._run.log(dict(figures), step=step)

    def finish(self) -> None:
        self._run.finish()


class _MLflow:
    """Files in the run folder; a server or database where MLFLOW_TRACKING_URI names one."""

    def __init__(self, session: Session) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # mlflow-skinny brings no database
        from mlflow.tracking import MlflowClient

        here = (session.folder / "mlflow").resolve().as_uri()
        self._client = MlflowClient(tracking_uri=os.environ.get("MLFLOW_TRACKING_URI") or here)
        experiment = self._client.get_experiment_by_name(_PROJECT)
        number = experiment.experiment_id if experiment else self._client.create_experiment(_PROJECT)
        before = self._client.search_runs([number], f"tags.tuition = '{session.id}'", max_results=1)
        if before:
            self._run = before[0].info.run_id
            return
        run = self._client.create_run(number, run_name=session.name, tags={"tuition": session.id})
        self._run = run.info.run_id
        for key, value in session.settings.items():
            self._client.log_param(self._run, key, str(value)[:500])

    def log(self, figures: Mapping[str, float], step: int) -> None:
        for name, value in figures.items():
            self._client.log_metric(self._run, _allowed(name), float(value), step=step)

    def finish(self) -> None:
        self._client.set_terminated(self._run)


def _allowed(name: str) -> str:
    """A name as MLflow allows it; a metric's may hold a pattern."""
    return "".join(c if c.isalnum() or c in "_-. /:" else "_" for c in name)[:250]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How a tracker is opened, and the package that it needs."""

    package: str
    open: Callable[[Session], Tracker]


TRACKERS: dict[str, _Kind] = {
    "tensorboard": _Kind("tensorboard", _TensorBoard),
    "trackio": _Kind("trackio", _Trackio),
    "wandb": _Kind("wandb", _WandB),
    "mlflow": _Kind("mlflow", _MLflow),
}
