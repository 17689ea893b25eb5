"""Commands that hand a model on: export, push, preferences, serve."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from tuition.cli.shared import (
    Checkpoint,
    Device,
    Json,
    ModelName,
    Tokens,
    Trust,
    app,
    at,
    complain,
    print_json,
)
from tuition.counting import counted


@app.command()
def export(
    model: ModelName,
    to: Annotated[str, typer.Option(help="The folder to write; it must not exist.", show_default=False)],
    format: Annotated[
        str,
        typer.Option(
            help="hf: a plain transformers folder, LoRA merged; adapter: peft's; gguf; ollama: GGUF and Modelfile."
        ),
    ] = "hf",
    dtype: Annotated[str, typer.Option(help="float32 (as trained) or bfloat16.")] = "float32",
    llama_cpp: Annotated[
        str | None,
        typer.Option(help="For gguf and ollama: the folder of llama.cpp; else $LLAMA_CPP or PATH."),
    ] = None,
    checkpoint: Checkpoint = None,
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Write a model for others to use; a fresh process reads it and answers alike before it is called exported."""
    from tuition import api

    checked: list[str] = []
    path = api.export(
        at(model, checkpoint), to, format=format, dtype=dtype, llama_cpp=llama_cpp,
        trust_remote_code=trust, on_checked=checked.append,
    )  # fmt: skip
    if as_json:
        print_json({"path": str(path), "format": format, "dtype": dtype, "checked": checked[0]})
    else:
        print(f"exported to {path}; {checked[0]}")


@app.command()
def push(
    model: ModelName,
    to: Annotated[str, typer.Option(help="owner/name on the Hugging Face hub.", show_default=False)],
    format: Annotated[str, typer.Option(help="hf or adapter.")] = "hf",
    dtype: Annotated[str, typer.Option(help="float32 (as trained) or bfloat16.")] = "float32",
    public: Annotated[bool, typer.Option("--public", help="Everybody may see it; else only you.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Export and list the files; upload nothing.")
    ] = False,
    checkpoint: Checkpoint = None,
    as_json: Json = False,
) -> None:
    """Export and upload to the Hugging Face hub, after the same check as export."""
    from tuition import api

    pushed = api.push(
        at(model, checkpoint), to, format=format, dtype=dtype, private=not public, dry_run=dry_run,
        on_checked=lambda sentence: print(sentence, file=sys.stderr),
    )  # fmt: skip
    if as_json:
        print_json(pushed.to_json())
        return
    for name, size in pushed.files:
        print(f"{size:>15,} bytes  {name}")
    total = f"{counted(len(pushed.files), 'file')}, {counted(sum(size for _, size in pushed.files), 'byte')}"
    print(f"{total}: uploaded to {pushed.address}" if pushed.address else f"{total} would go to {to}")


@app.command()
def preferences(
    model: ModelName,
    data: Annotated[
        str,
        typer.Option(help="Rows with prompts, and answers where a metric needs them.", show_default=False),
    ],
    to: Annotated[str, typer.Option(help="The JSONL file to write.", show_default=False)],
    metric: Annotated[
        str, typer.Option(help="The answer that scores higher is chosen; see evaluate.")
    ] = "exact_match",
    judge: Annotated[
        str | None, typer.Option(help="URL of an OpenAI-compatible API whose model compares instead.")
    ] = None,
    judge_model: Annotated[
        str | None, typer.Option(help="Its name; the key is read from TUITION_JUDGE_KEY.")
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="Answers drawn to each prompt.")] = 4,
    temperature: Annotated[float, typer.Option(help="Above 0; higher draws more differently.")] = 1.0,
    top_p: Annotated[
        float, typer.Option(min=0, max=1, help="Draw from the likeliest tokens of this share.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first so many prompts.")] = None,
    max_new_tokens: Tokens = 256,
    checkpoint: Checkpoint = None,
    device: Device = "auto",
    trust: Trust = None,
    as_json: Json = False,
) -> None:
    """Draw answers to each prompt, judge them in pairs, and write the pairs as TRL's preference trainers read them."""
    from tuition import api
    from tuition.evaluate.judge import make_judge
    from tuition.screen import Counter

    with Counter() as counter:
        counts = api.preferences(
            at(model, checkpoint), data, to, metric=metric, judge=make_judge(judge, judge_model), samples=samples,
            temperature=temperature, top_p=top_p, seed=seed, limit=limit, max_new_tokens=max_new_tokens,
            device=device, trust_remote_code=trust, on_progress=counter.show,
        )  # fmt: skip
    if as_json:
        print_json({"path": to, **counts.to_json()})
    else:
        print(
            f"{counted(counts.pairs, 'pair')} of {counted(counts.groups, 'prompt')} written to {to} "
            f"(of {counted(counts.prompts, 'prompt')} and "
            f"{counted(counts.answers, 'answer')}; {counts.repeated:,} repeated, {counts.unfinished:,} unfinished, {counted(counts.ties, 'tie')}"
            f"{f', {counts.unreadable:,} without a verdict' if counts.unreadable else ''})"
        )
    if counts.without_prompt:
        complain(f"{counted(counts.without_prompt, 'row has', 'rows have')} no prompt; see `tuition check`")
        raise typer.Exit(1)


@app.command()
def serve(
    model: ModelName,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes one that is free.")] = 8000,
    baseline: Annotated[
        str | None, typer.Option(help="A second model, beside the first on the page.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Another than this machine needs a key in $TUITION_API_KEY.")
    ] = "127.0.0.1",
    checkpoint: Checkpoint = None,
    device: Device = "auto",
) -> None:
    """Answer OpenAI's chat requests on this machine, with a page to chat on; Ctrl-C ends it."""
    from tuition import api

    def ready(address: str, models: list[str], others: list[str]) -> None:
        print("for many users, other servers on the same folder:", file=sys.stderr)
        for command in others:
            print(f"  {command}", file=sys.stderr)
        print("Ctrl-C ends it", file=sys.stderr)
        print(f"chat: {address}/   OpenAI's API: {address}/v1   models: {', '.join(models)}", flush=True)

    key = os.environ.get("TUITION_API_KEY") or None
    api.serve(
        at(model, checkpoint),
        baseline=baseline,
        host=host,
        port=port,
        device=device,
        api_key=key,
        on_ready=ready,
    )
    print("stopped", file=sys.stderr)
