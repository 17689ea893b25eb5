"""GGUF and Ollama go through the user's own llama.cpp: here a small converter stands in its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tuition
from tests.conftest import CHAT
from tuition.errors import UserError
from tuition.render.choosing import CHATML
from tuition.ship.llama_cpp import convert, find_converter, go_template, modelfile

CONVERTER = """
import argparse, json, pathlib
parser = argparse.ArgumentParser()
parser.add_argument("folder", type=pathlib.Path)
parser.add_argument("--outfile", type=pathlib.Path)
parser.add_argument("--outtype")
given = parser.parse_args()
stops = json.loads((given.folder / "generation_config.json").read_text())["eos_token_id"]
assert (given.folder / "model.safetensors").exists() and (given.folder / "tokenizer.json").exists()
given.outfile.write_bytes(b"GGUF" + json.dumps([given.outtype, stops]).encode())
"""


@pytest.fixture
def llama_cpp(tmp_path: Path) -> Path:
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    (folder / "convert_hf_to_gguf.py").write_text(CONVERTER)
    return folder


def test_without_llama_cpp_the_error_says_what_to_install(
    full_run: tuition.Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LLAMA_CPP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=r"git clone https://github.com/ggml-org/llama.cpp .* --llama-cpp"):
        full_run.export(tmp_path / "out", format="gguf")
    assert not (tmp_path / "out").exists()


def test_the_converter_is_found_in_the_folder_in_the_environment_and_on_the_path(
    llama_cpp: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = llama_cpp / "convert_hf_to_gguf.py"
    assert find_converter(llama_cpp) == script
    monkeypatch.setenv("LLAMA_CPP", str(llama_cpp))
    assert find_converter(None) == script
    monkeypatch.delenv("LLAMA_CPP")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(llama_cpp))
    assert find_converter(None) == script


def test_an_ollama_export_holds_one_gguf_and_a_modelfile_with_every_stop(
    full_run: tuition.Run, llama_cpp: Path, tmp_path: Path
) -> None:
    out = tmp_path / "helper"
    tuition.api.export(str(full_run.path), out, format="ollama", dtype="bfloat16", llama_cpp=llama_cpp)
    assert {p.name for p in out.iterdir()} == {"helper.gguf", "Modelfile", "README.md", "manifest.json"}
    outtype, stops = json.loads((out / "helper.gguf").read_bytes()[4:])
    assert outtype == "bf16"
    tokenizer = tuition.api.load(str(full_run.path)).tokenizer
    words = (out / "Modelfile").read_text()
    assert words.startswith("FROM ./helper.gguf\n")
    for stop in [stops] if isinstance(stops, int) else stops:
        assert f'PARAMETER stop "{tokenizer.convert_ids_to_tokens(stop)}"' in words


def test_a_converter_that_fails_exports_nothing_and_its_last_words_are_shown(
    full_run: tuition.Run, llama_cpp: Path, tmp_path: Path
) -> None:
    (llama_cpp / "convert_hf_to_gguf.py").write_text("raise SystemExit('Model LlamaForTwo is not supported')")
    with pytest.raises(UserError, match="LlamaForTwo is not supported"):
        tuition.api.export(str(full_run.path), tmp_path / "out", format="gguf", llama_cpp=llama_cpp)
    assert not (tmp_path / "out").exists()


def test_a_tokenizer_that_llama_cpp_does_not_know_is_said_to_be_the_reason(
    full_run: tuition.Run, llama_cpp: Path, tmp_path: Path
) -> None:
    script = "raise NotImplementedError('BPE pre-tokenizer was not recognized - update get_vocab_base_pre()')"
    (llama_cpp / "convert_hf_to_gguf.py").write_text(script)
    with pytest.raises(UserError, match=r"knows the tokenizers of published models.*--format hf"):
        convert(
            llama_cpp / "convert_hf_to_gguf.py", full_run.path / "model", tmp_path / "x.gguf", torch.float32
        )


def test_a_converter_without_its_libraries_is_told_to_have_an_environment_of_its_own(
    llama_cpp: Path, tmp_path: Path
) -> None:
    (llama_cpp / "convert_hf_to_gguf.py").write_text("import a_library_of_the_converter")
    with pytest.raises(
        UserError, match=r"No module named .* python -m venv .*llama.cpp/.venv && .* -r .*convert"
    ):
        convert(llama_cpp / "convert_hf_to_gguf.py", tmp_path, tmp_path / "a.gguf", torch.float32)


def test_the_converters_own_environment_runs_it(llama_cpp: Path, tmp_path: Path) -> None:
    own = llama_cpp / ".venv" / "bin" / "python"
    own.parent.mkdir(parents=True)
    own.write_text('#!/bin/sh\nprintf GGUF > "$4"\n')
    own.chmod(0o755)
    convert(llama_cpp / "convert_hf_to_gguf.py", tmp_path, tmp_path / "a.gguf", torch.float32)
    assert (tmp_path / "a.gguf").read_bytes() == b"GGUF"


def test_chatml_becomes_a_go_template() -> None:
    assert go_template(CHATML, {}) == (
        "{{ range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
    )


def test_a_bos_of_the_template_is_left_to_llama_cpp() -> None:
    assert go_template("{{ bos_token }}" + CHAT, {"bos_token": "<s>"}).startswith("{{ range .Messages }}<|")


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% if messages[0].role != 'system' %}<|system|>\nBe good.<|end|>\n{% endif %}" + CHAT, "default system text"),
        ("{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]{% else %}{{ m.content }}</s>{% endif %}{% endfor %}", "turn"),
        (CHAT.replace("{{ m.content }}", "{{ m.content.upper() }}"), "turn by turn"),
        (CHAT.replace("{{ m.content }}", "{{ m.content | trim | replace('Two', '2') }}"), "turn by turn"),
        (CHAT.replace("{{ m.content }}", "{{ m.content | trim }}"), "turn by turn"),
        ("{{ raise_exception('no') }}", "refuses"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_said_in_go_is_refused_with_the_reason(template: str, why: str) -> None:
    with pytest.raises(UserError, match=why):
        go_template(template, {})


def test_a_stop_with_quotes_is_quoted() -> None:
    words = modelfile("m.gguf", None, special_tokens={}, stops=['<"end">', "a\\b"])
    assert words.splitlines()[-2:] == ['PARAMETER stop "<\\"end\\">"', 'PARAMETER stop "a\\\\b"']
