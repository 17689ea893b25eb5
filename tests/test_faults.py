"""Faults that were once possible here, each kept as the test that shows it is gone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import tuition
from tests.conftest import CHAT, make_model, make_tokenizer, write_jsonl
from tests.test_run import StopAt, flip_a_byte, lines, weights_of
from tuition import api, files
from tuition.errors import Interrupted, UserError
from tuition.screen import Watcher


def test_a_model_with_missing_tensors_is_refused_and_not_filled_with_random_numbers(
    tmp_path: Path, data: Path
) -> None:
    folder = make_model(tmp_path / "holed", tie_word_embeddings=False)
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lm_head\.weight is missing"):
        tuition.evaluate(str(folder), str(data), metric=None)


def test_a_truncated_model_is_a_user_error(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "cut")
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"model\.safetensors: is damaged"):
        api.load(str(folder))


def test_a_damaged_checkpoint_that_is_reached_again_is_written_anew(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    settings |= {"save_every_steps": 2, "val_split": 0.0, "max_steps": 10}
    whole = tuition.train(**{**settings, "output_dir": str(tmp_path / "whole")})
    with pytest.raises(Interrupted):
        tuition.train(**settings, watcher=StopAt(6))
    root = Path(settings["output_dir"]) / "checkpoints"
    assert sorted(p.name for p in root.iterdir()) == ["step-4", "step-6"]
    flip_a_byte(root / "step-6" / "optimizer.safetensors")
    resumed = tuition.train(settings["output_dir"], resume=True)
    assert all(torch.equal(t, weights_of(resumed.path)[n]) for n, t in weights_of(whole.path).items())


def test_a_damaged_checkpoint_never_becomes_the_model(settings: dict[str, Any]) -> None:
    from tuition.train.checkpoint import load_weights

    run = tuition.train(**{**settings, "max_steps": 2})
    (checkpoint, *_) = (run.path / "checkpoints").iterdir()
    weights = dict(api.load(str(run.path)).loaded.model.named_parameters())
    load_weights(checkpoint, weights)
    flip_a_byte(checkpoint / "weights.safetensors")
    with pytest.raises(UserError, match="the checkpoint is damaged"):
        load_weights(checkpoint, weights)


def test_two_processes_never_share_a_run_folder(settings: dict[str, Any], tmp_path: Path) -> None:
    class Rival(Watcher):
        said = ""

        def begin(self, steps: int, step: int) -> None:
            command = [sys.executable, "-m", "tuition", "train", settings["output_dir"], "--resume"]
            loser = subprocess.run(command, capture_output=True, text=True, check=False)
            assert loser.returncode == 2
            Rival.said = loser.stderr

    tuition.train(**settings, watcher=Rival())
    assert "another process is training in this folder" in Rival.said


def test_a_resume_that_is_refused_leaves_the_rows_of_the_run_alone(llama: Path, tmp_path: Path) -> None:
    rows = [(f"What is {i}?", str(i)) for i in range(12)]
    options = {"output_dir": str(tmp_path / "run"), "samples": 0, "val_split": 0}
    with pytest.raises(Interrupted):
        tuition.train(model=str(llama), data=rows, max_steps=6, **options, watcher=StopAt(2))
    before = (tmp_path / "run" / "data.jsonl").read_bytes()
    with pytest.raises(UserError, match="not the rows that the run began with"):
        tuition.train(tmp_path / "run", data=[("x", "y")], resume=True)
    assert (tmp_path / "run" / "data.jsonl").read_bytes() == before
    assert tuition.train(tmp_path / "run", resume=True).path == tmp_path / "run"


def test_a_run_that_never_began_leaves_no_folder(llama: Path, tmp_path: Path) -> None:
    bad = write_jsonl(tmp_path / "bad.jsonl", [{"prompt": "a", "completion": ""}])
    with pytest.raises(UserError):
        tuition.train(model=str(llama), data=str(bad), output_dir=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_run_that_never_began_touches_no_file_that_was_there(llama: Path, tmp_path: Path) -> None:
    mine = write_jsonl(tmp_path / "data.jsonl", [{"prompt": "a", "completion": ""}])
    before = mine.read_bytes()
    with pytest.raises(UserError, match="can be learned from"):
        tuition.train(model=str(llama), data=str(mine), output_dir=str(tmp_path))
    with pytest.raises(UserError, match="exists already"):
        tuition.train(model=str(llama), data=[("a", "b")], output_dir=str(tmp_path))
    with pytest.raises(UserError):
        tuition.train(model=str(llama), data=[("a", "")], output_dir=str(tmp_path / "new"))
    assert mine.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data.jsonl"]


def test_an_interruption_before_the_first_update_loses_no_sample(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    class Early(Watcher):
        def begin(self, steps: int, step: int) -> None:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted):
        tuition.train(**settings, watcher=Early())
    run = tuition.train(settings["output_dir"], resume=True)
    assert all(
        row["base"] is not None and row["tuned"] is not None for row in lines(run.path / "samples.jsonl")
    )
    assert next(line["step"] for line in lines(run.path / "metrics.jsonl") if "eval_loss" in line) == 0


def test_a_long_sample_prompt_never_stops_a_run(settings: dict[str, Any], tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{i} " + "word " * 600},
                {"role": "assistant", "content": "no"},
            ]
        }
        for i in range(4)
    ] + [{"prompt": f"p{i}", "completion": "c"} for i in range(20)]
    path = write_jsonl(tmp_path / "long.jsonl", rows)
    run = tuition.train(
        **{**settings, "data": str(path), "val_data": str(path), "max_steps": 2, "samples": 24}
    )
    assert (run.path / "model").exists()


def test_a_folder_of_validation_files_is_validated_on(settings: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "held").mkdir()
    write_jsonl(tmp_path / "held" / "valid.jsonl", [{"prompt": f"h{i}", "completion": "c"} for i in range(5)])
    run = tuition.train(**{**settings, "val_data": str(tmp_path / "held"), "max_steps": 1})
    assert json.loads((run.path / "run.json").read_text())["data"]["validation_examples"] == 5


def test_greedy_is_greedy_whatever_the_model_folder_asks_for(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "m")
    plain = api.answer(api.load(str(folder)), "Hi there", max_new_tokens=12).text
    generation = json.loads((folder / "generation_config.json").read_text())
    generation |= {
        "repetition_penalty": 5.0,
        "no_repeat_ngram_size": 1,
        "do_sample": True,
        "temperature": 9.0,
    }
    (folder / "generation_config.json").write_text(json.dumps(generation))
    assert api.answer(api.load(str(folder)), "Hi there", max_new_tokens=12).text == plain


def test_a_run_answers_with_the_template_it_was_trained_with(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    template = tmp_path / "t.jinja"
    template.write_text(CHAT)
    run = tuition.train(**{**settings, "chat_template": str(template), "max_steps": 1})
    before = api.load(str(run.path)).renderer.prompt_ids([tuition.Message("user", "Hi")]).tolist()
    template.write_text("EDITED" + CHAT)
    assert api.load(str(run.path)).renderer.prompt_ids([tuition.Message("user", "Hi")]).tolist() == before
    template.unlink()
    assert run.generate("Hi", max_new_tokens=2) is not None


@pytest.mark.usefixtures("few_questions_of_one_reader")
def test_what_learned_plain_text_is_shipped_without_a_template(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    pairs = write_jsonl(
        tmp_path / "pairs.jsonl", [{"prompt": f"p{i}", "completion": f" c{i}"} for i in range(20)]
    )
    run = tuition.train(**{**settings, "data": str(pairs), "chat_template": "none", "max_steps": 1})
    from transformers import AutoTokenizer

    assert AutoTokenizer.from_pretrained(run.path / "model").chat_template is None
    exported = run.export(tmp_path / "out")
    in_run, outside = (
        api.load(str(p)).renderer.prompt_ids([tuition.Message("user", "Hi")]) for p in (run.path, exported)
    )
    assert in_run.tolist() == outside.tolist()


def test_a_base_model_is_compared_on_system_prompts_too(settings: dict[str, Any], tmp_path: Path) -> None:
    base = make_model(tmp_path / "base", tokenizer=make_tokenizer(template=None))
    rows = [
        {"messages": [{"role": r, "content": f"{r} {i}"} for r in ("system", "user", "assistant")]}
        for i in range(12)
    ]
    path = write_jsonl(tmp_path / "sys.jsonl", rows)
    run = tuition.train(**{**settings, "model": str(base), "data": str(path), "max_steps": 2})
    result = run.evaluate(str(path), baseline=str(base), max_new_tokens=3)
    assert result.base_held_out.examples == result.held_out.examples == 12


def test_evaluate_and_generate_name_the_rows_they_cannot_use(llama: Path, tmp_path: Path) -> None:
    path = tmp_path / "mixed.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\nnot json\n{"prompt": "only a prompt"}\n')
    result = tuition.evaluate(str(llama), str(path), max_new_tokens=2)
    assert (result.rows_in, [row["line"] for row in result.rejected]) == (3, [2, 3])
    answers = list(api.generate_file(str(llama), str(path), max_new_tokens=2))
    assert [(row["line"], "error" in row) for row in answers] == [(1, False), (2, True), (3, False)]


def test_generate_names_prompts_that_cannot_be_read_or_do_not_fit_and_answers_the_others(
    llama: Path, tmp_path: Path
) -> None:
    path = write_jsonl(
        tmp_path / "p.jsonl", [{"prompt": "half \ud83d"}, {"prompt": "long " * 600}, {"prompt": "a"}]
    )
    answers = api.generate_file(str(llama), str(path), max_new_tokens=2)
    assert [row.get("error") for row in answers] == ["D015", "R014", None]


def test_an_adapter_with_missing_tensors_or_pickles_is_refused(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    run = tuition.train(**{**settings, "method": "lora", "max_steps": 1})
    file = run.path / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    save_file(dict(list(weights.items())[:3]), file, metadata={"format": "pt"})
    with pytest.raises(UserError, match="lacks"):
        api.load(str(run.path))
    file.rename(file.with_name("adapter_model.bin"))
    with pytest.raises(UserError, match=r"no adapter_model\.safetensors"):
        api.load(str(run.path))


def test_a_resume_from_another_folder_says_where_to_go(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_jsonl(tmp_path / "d.jsonl", [{"prompt": f"p{i}", "completion": "c"} for i in range(9)])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Interrupted):
        tuition.train(
            model=str(llama), data="d.jsonl", output_dir="run", max_steps=6, samples=0, watcher=StopAt(2)
        )
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    with pytest.raises(UserError, match="cd "):
        tuition.train("../run", resume=True)
    monkeypatch.chdir(tmp_path)
    assert tuition.train("run", resume=True).path == Path("run")


def test_a_recipe_bomb_is_refused_at_once(tmp_path: Path) -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{b}: &{b} [{','.join(f'*{a}' for _ in range(9))}]\n"
        for a, b in zip("abcdefg", "bcdefgh", strict=True)
    )
    (tmp_path / "bomb.yaml").write_text(bomb)
    with pytest.raises(UserError, match="aliases") as refusal:
        tuition.train(tmp_path / "bomb.yaml")
    assert len(str(refusal.value)) < 500
    (tmp_path / "deep.yaml").write_text("a: " + "[" * 5000)
    with pytest.raises(UserError):
        tuition.train(tmp_path / "deep.yaml")


def test_published_folders_are_whole_or_absent(tmp_path: Path) -> None:
    folder = files.fresh_folder(tmp_path / "tmp")
    (folder / "a.txt").write_text("a")
    files.publish_folder(folder, tmp_path / "final")
    assert files.manifest_faults(tmp_path / "final") == []
    flip_a_byte(tmp_path / "final" / "a.txt")
    (tmp_path / "final" / "b.txt").write_text("b")
    assert files.manifest_faults(tmp_path / "final") == [
        "b.txt is not in the manifest",
        "a.txt does not have the SHA-256 that the manifest says",
    ]


def test_a_recipe_whose_data_is_no_name_is_refused_by_the_setting(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("model: starter\ndata: 5\n")
    with pytest.raises(UserError, match=r"data: is a name or a list of names, not 5"):
        tuition.train(recipe)


def test_a_run_folder_where_none_can_be_made_is_refused_and_not_waited_for(
    settings: dict[str, Any], tmp_path: Path
) -> None:
    dangling = tmp_path / "dangling"
    dangling.symlink_to(tmp_path / "unmounted" / "runs")
    with pytest.raises(UserError, match=r"the run folder cannot be written \(No such file or directory\)"):
        tuition.train(**{**settings, "output_dir": str(dangling)})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dangling", "data.jsonl"]
