"""Verbs that hand a model on: export, serve, push, preferences."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tuition.api.answers import ANSWER_TOKENS, all_of, load
from tuition.api.rows import refuse_overwriting
from tuition.door import as_names
from tuition.errors import UserError

if TYPE_CHECKING:
    from tuition.evaluate.judge import Judge
    from tuition.ship.preferences import Counts
    from tuition.ship.push import Pushed


def export(
    model: str,
    to: str | Path,
    *,
    format: str = "hf",
    dtype: str = "float32",
    llama_cpp: str | Path | None = None,
    trust_remote_code: str | None = None,
    on_checked: Callable[[str], None] = lambda sentence: None,
) -> Path:
    """Write a run or model in a format that others use, after a fresh process has read it and answered alike.

    Args:
        format: a key of `EXPORTS`: hf, adapter, gguf or ollama.
        llama_cpp: for gguf and ollama: the folder of llama.cpp; None: $LLAMA_CPP or PATH.
        trust_remote_code: see `load`.
        on_checked: told what the fresh process confirmed.

    Raises:
        UserError: the folder exists or belongs to the files of a run, or what was written answers differently.
    """
    import torch

    from tuition.ship.export import export as export_model
    from tuition.ship.export import refuse_place

    types = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    if dtype not in types:
        raise UserError(f"unknown dtype '{dtype}'", next_step=f"Choose one of: {', '.join(types)}")
    refuse_place(Path(to))  # before a model is loaded for it
    folder = None if llama_cpp is None else Path(llama_cpp)
    answerer = load(model, device="cpu", trust_remote_code=trust_remote_code)
    trip = export_model(answerer, Path(to), format=format, dtype=types[dtype], llama_cpp=folder)
    on_checked(trip.sentence)
    return Path(to)


def serve(
    model: str,
    *,
    baseline: str | None = None,
    host: str = "127.0.0.1",
    port: int = 8000,
    device: str = "auto",
    api_key: str | None = None,
    on_ready: Callable[[str, list[str], list[str]], None] = lambda address, models, others: None,
) -> None:
    """Answer OpenAI's chat requests, and show a page to chat on, until Ctrl-C.

    Args:
        baseline: a second model, shown beside the first on the page and prompted by its own template.
        port: 0 takes one that is free.
        api_key: what requests must carry; needed for any host but this machine.
        on_ready: told the address, the names of the models, and commands of other servers for the same folder.

    Raises:
        UserError: the port is taken, or the host is open to others and there is no key.
    """
    from tuition.ship.commands import other_servers
    from tuition.ship.server import Server

    names = list(dict.fromkeys(_served_name(name) for name in (model, baseline) if name))
    if baseline is not None and len(names) == 1:
        names = [f"{names[0]}-tuned", f"{names[0]}-base"]
    answerers = [load(name, device=device) for name in (model, baseline) if name]
    server = Server(dict(zip(names, answerers, strict=True)), host=host, port=port, api_key=api_key)
    server.run(lambda address: on_ready(address, names, other_servers(answerers[0], names[0])))


def _served_name(name: str) -> str:
    """What requests call a model: the name of its folder, after that of its run where it is a checkpoint."""
    from tuition.train.naming import run_of, step_of

    path = Path(name).resolve()
    return f"{run_of(name).name}-{path.name}" if step_of(name) is not None else path.name or name


def push(
    model: str,
    to: str,
    *,
    format: str = "hf",
    dtype: str = "float32",
    private: bool = True,
    dry_run: bool = False,
    on_checked: Callable[[str], None] = lambda sentence: None,
) -> Pushed:
    """Export to a temporary folder, through the gate, and upload it to the Hugging Face hub.

    Args:
        to: owner/name.
        dry_run: export and list the files, and upload nothing.

    Raises:
        UserError: no such name, nobody is logged in, or the hub refuses; nothing is uploaded before the gate.
    """
    import tempfile

    from tuition.ship.push import Pushed, check_name, files_in, refuse_local_base, token_or_refuse, upload

    check_name(to)
    token = None if dry_run else token_or_refuse()
    with tempfile.TemporaryDirectory(prefix="tuition-push-") as place:
        folder = export(
            model, Path(place) / to.split("/")[1], format=format, dtype=dtype, on_checked=on_checked
        )
        refuse_local_base(folder)
        address = None if token is None else upload(folder, to, token=token, private=private)
        return Pushed(to, files_in(folder), address)


def preferences(
    model: str,
    data: str | Sequence[str],
    to: str | Path,
    *,
    metric: str = "exact_match",
    judge: Judge | None = None,
    samples: int = 4,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    limit: int | None = None,
    max_new_tokens: int = ANSWER_TOKENS,
    device: str = "auto",
    trust_remote_code: str | None = None,
    on_progress: Callable[[str, int, int], None] = lambda name, done, total: None,
) -> Counts:
    """Draw answers to every prompt of a file, compare them in pairs, and write TRL's preference data.

    Args:
        metric: the answer that scores higher is chosen; not asked where there is a judge.
        judge: a model that compares the answers in both orders.
        samples: answers to each prompt.
        limit: only the first so many prompts.

    Raises:
        UserError: no row has a prompt, or no pair a winner.
    """
    from tuition.evaluate.drawing import Drawing
    from tuition.evaluate.generate import Question
    from tuition.evaluate.measures import find_metric
    from tuition.evaluate.prompts import read_prompts
    from tuition.ship.preferences import by_judge, by_metric, write_preferences

    refuse_overwriting(as_names(data)[0], to)
    read = list(read_prompts(all_of(data)))
    questions = [item for item in read if isinstance(item, Question)]
    without_prompt, questions = len(read) - len(questions), questions[:limit]
    better = by_metric(find_metric(metric)) if judge is None else by_judge(judge, Path(to).parent)
    counts = write_preferences(
        load(model, device=device, trust_remote_code=trust_remote_code),
        questions,
        Path(to),
        better,
        Drawing(max_new_tokens, temperature, samples, seed, top_p),
        judged_by=metric if judge is None else judge.model,
        on_prompt=lambda done: on_progress(f"answering {model}", done, len(questions)),
    )
    counts.without_prompt = without_prompt
    return counts
