"""A whole run from Python: what it writes, how it resumes, and what it refuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tuition
import tuition.api
from tests.conftest import CHAT, make_model, make_tokenizer, write_jsonl
from tests.patience import PATIENCE_SECONDS, wait_for
from tuition import api, cli, files
from tuition.errors import Interrupted, UserError
from tuition.screen import Watcher


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_run_folder_holds_what_the_design_says(settings: dict[str, Any]) -> None:
    run = tuition.train(**settings)
    names = {path.name for path in run.path.iterdir()}
    assert names >= {
        "recipe.yaml",
        "run.json",
        "ledger.jsonl",
        "metrics.jsonl",
        "checkpoints",
        "model",
        "report.html",
    }
    facts = json.loads((run.path / "run.json").read_text())
    assert facts["status"] == "finished"
    assert facts["data"]["rows_in"] == 60
    assert set(facts["hashes"]) == {"data", "examples", "template", "tokenizer", "model", "recipe"}
    assert all(proof["ok"] for proof in facts["proof"])
    steps = [line["step"] for line in lines(run.path / "metrics.jsonl") if "loss" in line]
    assert steps == list(range(1, 13))
    losses = [line["loss"] for line in lines(run.path / "metrics.jsonl") if "loss" in line]
    assert losses[-1] < losses[0]
    assert len(lines(run.path / "ledger.jsonl")) == 60
    assert "best_eval_loss" in facts["result"]


def test_whoever_may_read_the_run_may_read_its_weights(settings: dict[str, Any], tmp_path: Path) -> None:
    run = tuition.train(**{**settings, "max_steps": 1})
    exported = run.export(tmp_path / "exported")
    shipped = [*(run.path / "model").iterdir(), *exported.iterdir()]
    assert {file.stat().st_mode for file in shipped} == {(run.path / "run.json").stat().st_mode}


def test_every_checkpoint_verifies_and_only_the_best_and_the_newest_stay(settings: dict[str, Any]) -> None:
    run = tuition.train(**{**settings, "save_every_steps": 2, "eval_every_steps": 100, "keep_checkpoints": 3})
    kept = list((run.path / "checkpoints").iterdir())
    assert {folder.name for folder in kept} == {"step-8", "step-10", "step-12"}
    assert all(files.manifest_faults(folder) == [] for folder in kept)
    assert files.manifest_faults(run.path / "model") == []


def test_a_second_run_in_the_same_folder_is_refused_and_nothing_changes(settings: dict[str, Any]) -> None:
    run = tuition.train(**settings)
    before = {p: p.stat().st_mtime_ns for p in run.path.rglob("*")}
    with pytest.raises(UserError, match="holds a run already"):
        tuition.train(**settings)
    assert {p: p.stat().st_mtime_ns for p in run.path.rglob("*")} == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_interrupted_run_resumes_to_bitwise_the_same_weights(
    settings: dict[str, Any], tmp_path: Path, method: str, dtype: str
) -> None:
    settings |= {"method": method, "dtype": dtype, "dropout": 0.1, "max_steps": 40}
    whole = tuition.train(**{**settings, "output_dir": str(tmp_path / "whole")})
    cut = {**settings, "output_dir": str(tmp_path / "cut")}
    with pytest.raises(Interrupted):
        tuition.train(**cut, watcher=StopAt(20))
    resumed = tuition.train(tmp_path / "cut", resume=True)
    assert weights_of(resumed.path).keys() == weights_of(whole.path).keys()
    assert {tensor.dtype for tensor in weights_of(whole.path).values()} == {torch.float32}
    for name, tensor in weights_of(whole.path).items():
        assert torch.equal(tensor, weights_of(resumed.path)[name]), name
    figures = [
        [{k: v for k, v in line.items() if "second" not in k} for line in lines(path / "metrics.jsonl")]
        for path in (whole.path, resumed.path)
    ]
    assert figures[0] == figures[1]


def test_an_interrupted_run_whose_data_streams_resumes_to_bitwise_the_same_weights(
    settings: dict[str, Any], rows: list[dict[str, Any]], tmp_path: Path
) -> None:
    for number in range(4):
        write_jsonl(tmp_path / f"part-{number}.jsonl", rows[number::4])
    settings |= {"data": str(tmp_path / "part-*.jsonl"), "stream": True, "stream_files": 1}
    whole = tuition.train(**{**settings, "output_dir": str(tmp_path / "whole")})
    with pytest.raises(Interrupted):
        tuition.train(**{**settings, "output_dir": str(tmp_path / "cut")}, watcher=StopAt(5))
    resumed = tuition.train(tmp_path / "cut", resume=True)
    for name, tensor in weights_of(whole.path).items():
        assert torch.equal(tensor, weights_of(resumed.path)[name]), name
    assert len(lines(resumed.path / "ledger.jsonl")) == len(rows)
    assert all(proof["ok"] for proof in json.loads((resumed.path / "run.json").read_text())["proof"])


def test_a_job_that_a_scheduler_starts_again_begins_or_goes_on(settings: dict[str, Any]) -> None:
    with pytest.raises(Interrupted):
        tuition.train(**settings, resume_if_begun=True, watcher=StopAt(5))
    run = tuition.train(**settings, resume_if_begun=True)
    facts = json.loads((run.path / "run.json").read_text())
    assert [sitting.get("from_step", 0) for sitting in facts["sittings"]] == [0, 5]
    assert facts["status"] == "finished"
    took = [sitting["seconds"] for sitting in facts["sittings"]]
    assert facts["seconds"] == pytest.approx(sum(took), abs=0.002) and min(took) > 0, "both sittings count"


def test_a_damaged_checkpoint_is_passed_over(settings: dict[str, Any], tmp_path: Path) -> None:
    settings |= {"keep": "last", "val_split": 0.0, "save_every_steps": 2, "max_steps": 8}
    whole = tuition.train(**{**settings, "output_dir": str(tmp_path / "whole")})
    with pytest.raises(Interrupted):
        tuition.train(**settings, watcher=StopAt(5))
    root = Path(settings["output_dir"]) / "checkpoints"
    flip_a_byte(root / "step-5" / "weights.safetensors")
    resumed = tuition.train(settings["output_dir"], resume=True)
    assert all(torch.equal(t, weights_of(resumed.path)[n]) for n, t in weights_of(whole.path).items())


def test_a_run_that_is_finished_is_left_as_it_is_and_a_part_that_is_missing_is_made_again(
    settings: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tuition.train(**{**settings, "max_steps": 2}).path
    before = {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    monkeypatch.setattr(sys, "argv", ["tuition", "train", str(folder), "--resume"])
    with pytest.raises(SystemExit, match="0"):
        cli.main()
    said = capsys.readouterr()
    assert (
        f"{folder} is finished, and nothing is left to do; what it learned is {folder / 'model'}" in said.out
    )
    assert f"train {folder} --max-steps 4 --output-dir {folder}-longer" in said.out and said.err == ""
    assert tuition.train(**{**settings, "max_steps": 2}, resume_if_begun=True).was_finished
    assert {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()} == before
    with pytest.raises(UserError, match="not the same run any more"):
        tuition.train(folder, resume=True, max_steps=4)
    (folder / "recipe.yaml").rename(folder / "moved")
    with pytest.raises(UserError):
        tuition.train(folder, resume=True)
    (folder / "moved").rename(folder / "recipe.yaml")
    flip_a_byte(folder / "model" / "model.safetensors")
    assert not tuition.train(folder, resume=True).was_finished
    assert files.manifest_faults(folder / "model") == []


@pytest.mark.parametrize("figure", ["loss", "exact_match"])
def test_the_base_models_figure_is_of_the_kind_that_the_best_was_chosen_by(
    tmp_path: Path, figure: str
) -> None:
    rows = [{"step": 0, "eval_loss": 3.0, "eval_exact_match": 0.25}, {"step": 4, "eval_loss": 1.0}]
    write_jsonl(tmp_path / "metrics.jsonl", rows)
    expected = {"loss": 3.0, "exact_match": 0.25}[figure]
    assert api.figure_before(tmp_path, {"result": {"best_by": figure}}) == expected


def test_a_finished_run_whose_template_is_another_by_now_is_refused(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text(CHAT)
    folder = tuition.train(**settings | {"max_steps": 1, "chat_template": str(template)}).path
    assert tuition.train(folder, resume=True).was_finished
    template.write_text(CHAT + "{# mended #}")
    with pytest.raises(UserError, match=r"not the same run any more.*template was"):
        tuition.train(folder, resume=True)


def test_a_resume_with_other_data_is_refused_by_name(settings: dict[str, Any], data: Path) -> None:
    with pytest.raises(Interrupted):
        tuition.train(**settings, watcher=StopAt(3))
    data.write_text(data.read_text() + data.read_text().splitlines()[0].replace("What", "Why") + "\n")
    with pytest.raises(
        UserError, match=r"not the same run any more: data was [0-9a-f]{12} and is [0-9a-f]{12}"
    ):
        tuition.train(settings["output_dir"], resume=True)


def test_a_loss_that_is_not_finite_stops_before_the_update(settings: dict[str, Any], tmp_path: Path) -> None:
    folder = make_model(tmp_path / "broken")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"][0] = 3e38  # a number, until it is multiplied
    from safetensors.torch import save_file

    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"at step 1; the weights were not changed.*data.jsonl:"):
        tuition.train(**{**settings, "model": str(folder)})
    assert not (Path(settings["output_dir"]) / "model").exists()


def test_ctrl_c_saves_and_prints_the_resume_command(settings: dict[str, Any], tmp_path: Path) -> None:
    settings |= {"max_steps": 100_000, "save_every_steps": 100_000, "eval_every_steps": 100_000}
    flags = [f"--set={key}={value}" for key, value in settings.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "tuition", "train", *flags], stderr=subprocess.PIPE, text=True, cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    journal = Path(settings["output_dir"]) / "metrics.jsonl"
    wait_for(lambda: journal.exists() and journal.read_text().count('"loss"') > 5)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE_SECONDS)
    assert process.returncode == 130
    assert f"tuition train {settings['output_dir']} --resume" in errors
    assert "Traceback" not in errors
    steps = [line["step"] for line in lines(journal) if "loss" in line]
    (checkpoint,) = (Path(settings["output_dir"]) / "checkpoints").iterdir()
    assert checkpoint.name == f"step-{steps[-1]}"


@pytest.mark.usefixtures("few_questions_of_one_reader")
def test_the_textbook_example_is_short_and_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gpt2 = make_model(tmp_path / "gpt2", family="gpt2", tokenizer=make_tokenizer(template=None))
    pairs = [
        ("Translate English to French: Hello, how are you?", "Bonjour, comment ça va?"),
        ("Summarize: The cat sat on the mat.", "Cat sat on mat."),
    ]
    run = tuition.train(model=str(gpt2), data=pairs, epochs=40, learning_rate=1e-2, val_split=0)
    assert [run.generate(prompt) for prompt, _ in pairs] == [target for _, target in pairs]
    exported = run.export(tmp_path / "exported")
    script = (
        "import sys, json\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "folder, *prompts = sys.argv[1:]\n"
        "model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)\n"
        "for prompt in prompts:\n"
        "    ids = tokenizer.apply_chat_template([{'role': 'user', 'content': prompt}], add_generation_prompt=True, return_tensors='pt')\n"
        "    new = model.generate(**ids, max_new_tokens=60, do_sample=False)[0, ids['input_ids'].shape[1]:]\n"
        "    print(json.dumps([tokenizer.decode(new, skip_special_tokens=True), len(new)]))\n"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script, str(exported), *(prompt for prompt, _ in pairs)],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    ).stdout  # fmt: skip
    answers = [json.loads(line) for line in shown.splitlines()]
    assert [answer for answer, _ in answers] == [target for _, target in pairs]
    assert all(length < 60 for _, length in answers), "the exported model stops by itself"


@pytest.mark.usefixtures("few_questions_of_one_reader")
def test_a_merged_lora_answers_like_its_adapter(settings: dict[str, Any], tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", tokenizer=make_tokenizer(template=None), tie_word_embeddings=False)
    run = tuition.train(**{**settings, "model": str(base), "method": "lora"})
    assert (run.path / "adapter" / "adapter_model.safetensors").exists()
    assert "More Information Needed" not in (run.path / "adapter" / "README.md").read_text()
    merged = run.export(tmp_path / "merged")
    ids = torch.arange(20, 60)[None]
    answerer = tuition.api.load(str(run.path))
    from transformers import AutoModelForCausalLM

    with torch.no_grad():
        adapted = answerer.loaded.model(input_ids=ids).logits
        plain = AutoModelForCausalLM.from_pretrained(merged)(input_ids=ids).logits
    assert float((adapted - plain).abs().max()) < 1e-4
    generation = json.loads((merged / "generation_config.json").read_text())
    tokenizer = answerer.tokenizer
    assert tokenizer.convert_tokens_to_ids("<|im_end|>") in generation["eos_token_id"]


TOOL_TURNS = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}"
    "{% if m.tool_calls %}{{ m.tool_calls[0].function.name }}<|tool|>{% else %}<|end|>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)


@pytest.mark.usefixtures("few_questions_of_one_reader")
def test_a_lora_keeps_the_stop_token_that_only_tool_turns_end_with(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    tokenizer = make_tokenizer(template=TOOL_TURNS)
    base = make_model(tmp_path / "base", tokenizer=tokenizer)
    call = {"type": "function", "function": {"name": "look", "arguments": {}}}
    tools = [{"type": "function", "function": {"name": "look", "description": "", "parameters": {}}}]
    rows = [
        {"messages": [{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": "", "tool_calls": [call]}],
         "tools": tools}
        for n in range(8)
    ]  # fmt: skip
    data = write_jsonl(tmp_path / "tools.jsonl", rows)
    run = tuition.train(**{**settings, "model": str(base), "data": str(data), "method": "lora"})
    stop = tokenizer.convert_tokens_to_ids("<|tool|>")
    assert stop in tuition.api.load(str(run.path)).renderer.stop_ids
    for name, format in (("merged", "hf"), ("alone", "adapter")):
        exported = run.export(tmp_path / name, format=format)
        assert stop in json.loads((exported / "generation_config.json").read_text())["eos_token_id"], name
        assert stop in tuition.api.load(str(exported)).renderer.stop_ids, name


@pytest.mark.usefixtures("few_questions_of_one_reader")
def test_an_export_that_would_answer_differently_is_refused(
    settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tuition.ship import export as ship

    run = tuition.train(**settings)
    honest = ship.save_model

    def corrupting(model: Any, folder: Path, **options: Any) -> None:
        with torch.no_grad():
            model.get_input_embeddings().weight[:50] += 0.5
        honest(model, folder, **options)

    monkeypatch.setattr(ship, "save_model", corrupting)
    with pytest.raises(UserError, match="answers differently"):
        run.export(tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


def test_validation_keeps_groups_together_and_rows_keep_their_side(
    settings: dict[str, Any], tmp_path: Path, rows: list[dict[str, Any]]
) -> None:
    grouped = [{**row, "group": f"g{i // 6}"} for i, row in enumerate(rows)]
    sides = []
    for count in (30, 60):
        path = write_jsonl(tmp_path / f"{count}.jsonl", grouped[:count])
        run = tuition.train(
            **{**settings, "data": str(path), "output_dir": str(tmp_path / f"run{count}"), "max_steps": 1}
        )
        sides.append([row["side"] for row in lines(run.path / "ledger.jsonl")])
    assert sides[1][:30] == sides[0]
    assert all(len(set(sides[1][i : i + 6])) == 1 for i in range(0, 60, 6))
    assert set(sides[1]) == {"train", "validation"}


class StopAt(Watcher):
    """Presses Ctrl-C after a step."""

    def __init__(self, step: int) -> None:
        self.at = step

    def step(self, report: Any) -> None:
        if report.step == self.at:
            signal.raise_signal(signal.SIGINT)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    (path,) = [*run.glob("model/*.safetensors"), *run.glob("adapter/*.safetensors")]
    return load_file(path)


def flip_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))
