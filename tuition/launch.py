"""Starting many ranks: torchrun on this machine, and files for those who have more of them.

Nothing here trains. torchrun starts `python -m tuition train` once a rank, stops all when one dies, and starts
them again; a restarted run goes on from its newest checkpoint by itself.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tuition.errors import UserError
from tuition.leaving import INTERRUPTED
from tuition.torchrun import SECONDS_TO_SAVE, STOPS
from tuition.train.folder import RunFolder

_PORT = 29400


def count_of(gpus: str | None, processes: int | None) -> int:
    """How many ranks were asked for on this machine; 1: none are started.

    Raises:
        UserError: it is no number, or more than there are.
    """
    if gpus is None:
        return processes or 1
    import torch

    there = torch.cuda.device_count()
    wanted = there if gpus == "all" else int(gpus) if gpus.isdigit() else 0
    if not 0 < wanted <= there:
        raise UserError(
            f"this machine has {there} CUDA devices",
            where=f"--gpus {gpus}",
            next_step="Give a number of them, or all; on a CPU, --processes N",
        )
    return wanted


def run_ranks(arguments: Sequence[str], ranks: int, *, restarts: int) -> int:
    """Run `tuition train` with these arguments in so many processes on this machine.

    Args:
        restarts: how often torchrun may start all ranks again after one of them died.

    Returns:
        torchrun's exit code; `INTERRUPTED` where a signal ended it.
    """
    command = [
        *(sys.executable, "-m", "tuition.torchrun", "--standalone"),
        *("--nproc-per-node", str(ranks), "--max-restarts", str(restarts), "--monitor-interval", "0.5"),
        *("--shutdown-timeout", str(SECONDS_TO_SAVE), "--signals-to-handle", "SIGTERM,SIGHUP,SIGQUIT"),
        *("-m", "tuition", "train", *arguments),
    ]
    threads = str(max(1, (os.cpu_count() or 1) // ranks))
    asked: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        """torchrun hands a signal to the ranks and waits for what they save. The keyboard's has reached it already."""
        asked.append(number)
        if number != signal.SIGINT or not sys.stdin.isatty():
            process.send_signal(number)

    # blocked here and, by inheritance, there: a signal waits until this process knows torchrun, and torchrun is ready
    unblocked = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    before = {number: signal.signal(number, pass_on) for number in STOPS}
    try:
        process = subprocess.Popen(command, env={"OMP_NUM_THREADS": threads, **os.environ})
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
        code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, unblocked)
    return INTERRUPTED if asked and code else code


# --- files for many machines ---


def slurm(recipe: Path, nodes: int, gpus: int) -> str:
    """An sbatch file."""
    return f"""#!/bin/bash
#SBATCH --job-name={recipe.stem}
#SBATCH --nodes={nodes}
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node={gpus}
#SBATCH --cpus-per-task={8 * gpus}
#SBATCH --signal=B:TERM@120  # two minutes before the limit: a checkpoint is written
#SBATCH --requeue  # after a preemption; after the limit, sbatch this file again
#SBATCH --open-mode=append

first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
trap 'kill -TERM $job; wait $job' TERM
srun --kill-on-bad-exit=1 {_torchrun(nodes, gpus, '"$first"', '"$SLURM_JOB_ID"')} \\
    {_train(recipe)} &
job=$!
wait $job
"""


def kubernetes(recipe: Path, nodes: int, gpus: int) -> str:
    """An indexed Job with a headless service. The volume must be one that all pods see."""
    name = _name(recipe)
    return f"""apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  clusterIP: None
  selector: {{job-name: {name}}}
---
apiVersion: batch/v1
kind: Job
metadata: {{name: {name}}}
spec:
  completions: {nodes}
  parallelism: {nodes}
  completionMode: Indexed
  backoffLimit: 10
  template:
    spec:
      subdomain: {name}
      restartPolicy: Never
      terminationGracePeriodSeconds: 120
      containers:
      - name: train
        image: YOUR_IMAGE  # Python with tuition in it
        workingDir: /work
        command: [bash, -c]
        args:
        - exec {_torchrun(nodes, gpus, f"{name}-0.{name}", name)} {_train(recipe)}
        resources: {{limits: {{nvidia.com/gpu: {gpus}}}}}
        volumeMounts:
        - {{name: work, mountPath: /work}}
        - {{name: shared-memory, mountPath: /dev/shm}}
      volumes:
      - {{name: work, persistentVolumeClaim: {{claimName: YOUR_CLAIM}}}}
      - {{name: shared-memory, emptyDir: {{medium: Memory}}}}
"""


def skypilot(recipe: Path, nodes: int, gpus: int) -> str:
    """A task for `sky jobs launch`, which starts anew what was preempted."""
    start = _torchrun(nodes, gpus, '"$(echo "$SKYPILOT_NODE_IPS" | head -n 1)"', '"$SKYPILOT_TASK_ID"')
    return f"""name: {_name(recipe)}
num_nodes: {nodes}
resources:
  accelerators: H200:{gpus}
  use_spot: true
file_mounts:
  /work: {{source: YOUR_BUCKET, mode: MOUNT_CACHED}}
workdir: .
setup: pip install tuition
run: |
  {start} \\
      {_train(recipe)}
"""


LAUNCHERS: dict[str, Callable[[Path, int, int], str]] = {
    "slurm": slurm,
    "kubernetes": kubernetes,
    "skypilot": skypilot,
}


def launch_file(kind: str, recipe: str, *, nodes: int, gpus: int) -> str:
    """The ready file for a scheduler.

    Raises:
        UserError: an unknown scheduler, no such recipe, or one that names no folder for the run.
    """
    from tuition.recipe import read_settings

    if kind not in LAUNCHERS:
        raise UserError(f"unknown scheduler '{kind}'", next_step=f"Choose one of: {', '.join(LAUNCHERS)}")
    settings = read_settings(Path(recipe))
    if settings.get("output_dir", "auto") == "auto":
        raise UserError(
            "names no output_dir, and all machines must write into the same",
            where=recipe,
            next_step="Set output_dir: to a folder on a disk that all of them see",
        )
    return LAUNCHERS[kind](Path(recipe), nodes, gpus)


def _train(recipe: Path) -> str:
    """What each rank runs: a job that was preempted, and is started again, goes on."""
    return f"-m tuition train {shlex.quote(str(recipe))} --resume-if-begun"


def _torchrun(nodes: int, gpus: int, host: str, job: str) -> str:
    return (
        f"torchrun --nnodes {nodes} --nproc-per-node {gpus} --max-restarts 3 --shutdown-timeout {SECONDS_TO_SAVE} "
        f"--rdzv-backend c10d --rdzv-endpoint {host}:{_PORT} --rdzv-id {job}"
    )


def _name(recipe: Path) -> str:
    """A name that every scheduler takes."""
    name = "".join(c if c.isascii() and c.isalnum() else "-" for c in recipe.stem.lower()).strip("-")
    return name or "tuition"


def interrupted(folder: Path) -> bool:
    """Whether the ranks stopped because somebody asked them to."""
    try:
        return RunFolder(folder).read_facts().get("status") == "interrupted"
    except UserError:
        return False
