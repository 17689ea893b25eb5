"""The commands that serve what was trained with servers made for many users; none of them is run here."""

from __future__ import annotations

import shlex
from pathlib import Path

from tuition.evaluate.load import Answerer
from tuition.train.adapterfolder import read_adapter
from tuition.train.naming import run_of, step_of

# --max-lora-rank takes these alone; without it vLLM takes ranks up to 16.
_RANKS = (16, 32, 64, 128, 256, 320, 512)


def other_servers(answerer: Answerer, name: str) -> list[str]:
    """Commands for vLLM, SGLang and transformers on the same weights.

    Args:
        name: what requests will call it.
    """
    run = run_of(answerer.name)
    if step_of(answerer.name) is not None:  # a checkpoint is no folder that others load
        return _after_export(answerer, name)
    folder = str(run.adapter if answerer.adapted else run.model) if run.holds_a_run() else answerer.name
    if not answerer.adapted:
        return [
            _line("vllm", "serve", folder, "--served-model-name", name),
            _line(
                "python", "-m", "sglang.launch_server", "--model-path", folder, "--served-model-name", name
            ),
            _line("transformers", "serve", folder),
        ]
    of_vllm, of_transformers = _after_export(answerer, f"{name}-merged")
    if read_adapter(Path(folder)).get("trainable_token_indices"):  # vLLM and SGLang lay LoRA matrices only
        return [of_vllm, of_transformers]
    sglang = ["--model-path", answerer.base, "--enable-lora", "--lora-paths", f"{name}={folder}"]
    return [
        vllm_of_adapter(answerer.base, Path(folder), name),
        _line("python", "-m", "sglang.launch_server", *sglang, "--tokenizer-path", folder),
        of_transformers,
    ]


def _after_export(answerer: Answerer, to: str) -> list[str]:
    """Commands that write a plain folder first."""
    export = _line("tuition", "export", answerer.name, "--to", to)
    return [f"{export} && {_line(server, 'serve', to)}" for server in ("vllm", "transformers")]


def vllm_of_adapter(base: str, folder: Path, name: str) -> str:
    """vLLM lays the adapter over its base; prompts and stops are those of training only if told where they stand."""
    words = ["vllm", "serve", base, "--enable-lora", "--lora-modules", f"{name}={folder}"]
    words += ["--tokenizer", str(folder), "--generation-config", str(folder)]
    template = folder / "chat_template.jinja"
    words += ["--chat-template", str(template)] if template.exists() else []
    rank = int(read_adapter(folder).get("r") or 0)
    enough = next((allowed for allowed in _RANKS if rank <= allowed), rank)
    return _line(*words, *(["--max-lora-rank", str(enough)] if enough > _RANKS[0] else []))


def _line(*words: str) -> str:
    return shlex.join(words)
