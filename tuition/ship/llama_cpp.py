"""GGUF and Ollama, through the user's own llama.cpp: nothing is downloaded, nothing is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import torch

from tuition.errors import UserError

CONVERTER = "convert_hf_to_gguf.py"
_OUTTYPES = {torch.float32: "f32", torch.bfloat16: "bf16"}


def find_converter(given: Path | None) -> Path:
    """llama.cpp's converter: in the folder given, in $LLAMA_CPP, or on PATH.

    Raises:
        UserError: it is in none of them.
    """
    from_environment = os.environ.get("LLAMA_CPP")
    named = Path(from_environment) if given is None and from_environment else given
    if named is not None and (named / CONVERTER).is_file():
        return named / CONVERTER
    on_path = shutil.which(CONVERTER) if given is None else None
    if on_path:
        return Path(on_path)
    looked = f"{named} has none" if named is not None else "neither $LLAMA_CPP nor PATH has it"
    raise UserError(
        f"llama.cpp's {CONVERTER} was not found ({looked})",
        where="--llama-cpp",
        next_step=f"git clone https://github.com/ggml-org/llama.cpp && {_own_environment(Path('llama.cpp'))}, "
        "then give --llama-cpp llama.cpp",
    )


def _own_environment(folder: Path) -> str:
    """The commands that give the converter its libraries: it pins other versions than tuition runs with."""
    requirements = folder / "requirements" / "requirements-convert_hf_to_gguf.txt"
    return f"python -m venv {folder}/.venv && {folder}/.venv/bin/pip install -r {requirements}"


def _python_of(converter: Path) -> str:
    """The interpreter of the converter's own environment, or this one where it has none."""
    own = converter.parent / ".venv" / "bin" / "python"
    return str(own) if own.exists() else sys.executable


def convert(converter: Path, folder: Path, file: Path, dtype: torch.dtype) -> None:
    """Make one .gguf file from a transformers folder.

    Raises:
        UserError: the converter failed, or its file is not GGUF; its last words are shown.
    """
    words = [str(folder), "--outfile", str(file), "--outtype", _OUTTYPES[dtype]]
    process = subprocess.run(
        [_python_of(converter), str(converter), *words], capture_output=True, text=True, check=False
    )
    if process.returncode != 0:
        last = (process.stderr.strip().splitlines() or [f"exit {process.returncode}"])[-1]
        mend = "Update llama.cpp, or export --format hf and convert it by hand"
        if last.startswith("ModuleNotFoundError"):
            mend = f"Give it an environment of its own: {_own_environment(converter.parent)}"
        if "pre-tokenizer was not recognized" in last:
            mend = "llama.cpp knows the tokenizers of published models by name, and this is none: export --format hf"
        raise UserError(f"llama.cpp's converter failed ({last[:300]})", where=str(converter), next_step=mend)
    if not file.exists() or not _is_gguf(file):
        raise UserError(
            "llama.cpp's converter wrote no GGUF file", where=str(converter), next_step="Update llama.cpp"
        )


def _is_gguf(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(4) == b"GGUF"


def modelfile(
    gguf: str, template: str | None, *, special_tokens: Mapping[str, object], stops: Sequence[str]
) -> str:
    """The Modelfile that `ollama create` reads: weights, template in Ollama's own language, every stop.

    Args:
        template: the Jinja chat template; None: plain text.

    Raises:
        UserError: the template cannot be said in Ollama's language without changing what is served.
    """
    lines = [f"FROM ./{gguf}", f'TEMPLATE """{go_template(template, special_tokens)}"""']
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in stops]
    return "\n".join(lines) + "\n"


def go_template(template: str | None, special_tokens: Mapping[str, object]) -> str:
    """A Jinja chat template as Ollama's Go template.

    Only templates that write every turn in the same way, whatever the others say, are translated: the
    pieces are found by rendering, and the translation is compared with the original on conversations.

    Raises:
        UserError: it is another kind of template.
    """
    if template is None:
        return "{{ .Prompt }}"
    start, before, between, after, prompt = _pieces(template, special_tokens)
    if any(
        mark in piece for piece in (start, before, between, after, prompt) for mark in ("{{", "}}", '"""')
    ):
        _refuse("its text has braces or quotes that Ollama would read as commands")
    return (
        start + "{{ range .Messages }}" + before + "{{ .Role }}" + between + "{{ .Content }}" + after
        + "{{ end }}" + prompt
    )  # fmt: skip


def _pieces(template: str, special_tokens: Mapping[str, object]) -> tuple[str, str, str, str, str]:
    """What the template writes before all, before a role, between role and content, after it, and to ask."""
    from tuition.render.template import ChatTemplate, TemplateRefusal

    jinja = ChatTemplate(template, special_tokens, "")

    def text(turns: Sequence[tuple[str, str]], ask: bool = False) -> str:
        messages = [{"role": role, "content": content} for role, content in turns]
        return jinja.text(messages, (), add_generation_prompt=ask)

    one, two = [("user", "QQ1")], [("user", "QQ1"), ("assistant", "AA2")]
    try:
        first, both = text(one), text(two)
        second = both.removeprefix(first)
        if not both.startswith(first) or "assistant" not in second or second.count("AA2") != 1:
            _refuse("its turns are not written one after the other")
        before, _, rest = second.partition("assistant")
        between, _, after = rest.partition("AA2")
        turn = f"{before}user{between}QQ1{after}"
        if not first.endswith(turn):
            _refuse("it does not write every role in the same way")
        start = first.removesuffix(turn)
        prompt = text(one, ask=True).removeprefix(first)
        for turns in _CONVERSATIONS:
            said = start + "".join(f"{before}{r}{between}{c}{after}" for r, c in turns)
            if text(turns, ask=True) != said + prompt:
                _refuse(
                    "it writes some conversations otherwise than turn by turn, such as with a default system text or trimmed"
                )
    except TemplateRefusal as refusal:
        _refuse(f"it refuses a plain conversation ({refusal})")
    # llama.cpp's tokenizer puts the BOS itself, so that a BOS of the template would be the second
    bos = str(special_tokens.get("bos_token") or "")
    return start.removeprefix(bos) if bos else start, before, between, after, prompt


_CONVERSATIONS = (
    [("user", " Hello there ")],
    [("system", "Be brief."), ("user", "Hi")],
    [("user", "Hi"), ("assistant", "Yes?"), ("user", "Two\nlines")],
    [("system", "S"), ("user", "A"), ("assistant", "B"), ("user", "C"), ("assistant", "D"), ("user", "E")],
)


def _quoted(stop: str) -> str:
    return '"' + stop.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _refuse(why: str) -> NoReturn:
    raise UserError(
        f"its chat template cannot be said in Ollama's language: {why}",
        where="--format ollama",
        next_step="Use --format gguf: llama.cpp's own server reads the chat template from the file",
    )
