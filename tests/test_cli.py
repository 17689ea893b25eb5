"""The command line as a newcomer meets it: quick, quiet, and with a next step in every complaint."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from tests.conftest import CHAT, make_model, make_tokenizer, write_jsonl
from tuition import cli
from tuition.cli import entry
from tuition.errors import Finding, Origin
from tuition.screen import Terminal, show_samples
from tuition.train.reports import EvalReport, StepReport


def tuition(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str
) -> tuple[int, str, str]:
    """Run the command in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(sys, "argv", ["tuition", *words])
    code = 0
    try:
        cli.main()
    except SystemExit as leaving:
        code = int(leaving.code or 0)
    shown = capsys.readouterr()
    assert "Traceback" not in shown.err
    return code, shown.out, shown.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    monkeypatch.chdir(tmp_path)
    return lambda *words: tuition(capsys, monkeypatch, *map(str, words))


def imported_by(folder: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """What the command said in a process of its own, and the modules that it imported to say it."""
    command = [sys.executable, "-X", "importtime", "-m", "tuition", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    return done, {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}


def test_help_answers_at_once_and_imports_no_torch(tmp_path: Path) -> None:
    shown, imported = imported_by(tmp_path, "--help")
    assert imported.isdisjoint({"torch", "transformers", "datasets", "numpy"})
    assert shown.returncode == 0 and "train" in shown.stdout


def test_data_that_is_not_there_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    refused, imported = imported_by(tmp_path, "train", "--data", "no.jsonl", "--model", "starter")
    assert refused.returncode == 2 and "no.jsonl: there is no such file" in refused.stderr
    assert "tuition.door" in imported and "torch" not in imported


def test_the_rooms_before_training_import_no_torch() -> None:
    code = (
        "import tuition, tuition.data, tuition.render, tuition.batch, sys; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["check", ""], ["an empty name names no data", "a variable of the shell may be empty"]),
        (["check", "good.jsonl", "--model", "starter", "--max-length", "9999"], ["max_length 9,999 is more than the 1,024 positions", "Set max_length: 1024 or auto"]),
        (["check", "-"], ["standard input cannot be read twice", "Save the data to a file"]),
        (["check", "missing.jsonl"], ["missing.jsonl", "no such file"]),
        (["train", "missing.yaml"], ["missing.yaml", "tuition init"]),
        (["train", "wrong.yaml"], ["'cutoff_len': here it is 'max_length'", "'epoch': did you mean 'epochs'?", "'model' is missing"]),
        (["train", "torn.yaml"], ["torn.yaml", "line 1"]),
        (["train", "--model", "nowhere/at/all", "--data", "good.jsonl"], ["no such model folder"]),
        (["train", "--model", "hollow", "--data", "good.jsonl"], ["hollow", "no config.json"]),
        (["train", "--model", "hollow"], ["'data' is missing"]),
        (["train"], ["'model' is missing; 'data' is missing. Give --model FOLDER_OR_HUB_NAME --data FILE, or a recipe"]),
        (["train", "--resume"], ["tuition train RUN_FOLDER --resume"]),
        (["train", "good.jsonl"], ["is data, not a recipe", "Before each file stands --data", "--data good.jsonl"]),
        (["plan", "good.jsonl"], ["is data, not a recipe", "Before each file stands --data", "--data good.jsonl"]),
        (["plan", "--model", "sound"], ["'data' is missing. Give --data FILE"]),
        (["train", "sound"], ["is a model, not a recipe", "--model sound --data FILE"]),
        (["generate", "cache", "--prompt", "a"], ["is a repository of the hub's cache", "Name its snapshot: cache/snapshots/abc"]),
        (["train", "--model", "m", "--data", "good.jsonl", "--set", "epochs"], ["key=value"]),
        (["generate", "hollow"], ["--prompt"]),
        (["explain", "D999"], ["there is no code 'D999'"]),
        (["train", "axolotl.yaml"], ["'base_model': here it is 'model'\n", "'packing', 'sample_packing': examples", "'flash_attention': the fastest"]),
        (["train", "--model", "m", "--data", "good.jsonl", "--dtype", "bf16"], ["'auto', 'float32' or 'bfloat16' (here it is 'bfloat16')"]),
        (["train", "--model", "m", "--data", "good.jsonl", "--optimizer", "fp32"], ["'adamw_8bit' or 'muon'. Mend it"]),
        (["train", "--model", "m", "--train-on-inputs", "false"], ["there is no --train-on-inputs: here it is 'train_on'"]),
        (["train", "hollow", "--resume"], ["hollow"]),
        (["trian"], ["Did you mean 'train'"]),
    ],
)  # fmt: skip
def test_wrong_use_ends_with_what_where_and_a_next_step(
    run: Any, tmp_path: Path, words: list[str], said: list[str]
) -> None:
    for folder in ("hollow", "sound", "cache/snapshots/abc"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "sound" / "config.json").write_text("{}")
    write_jsonl(tmp_path / "good.jsonl", [{"prompt": "a", "completion": "b"}])
    (tmp_path / "wrong.yaml").write_text("data: good.jsonl\ncutoff_len: 512\nepoch: 3\n")
    (tmp_path / "axolotl.yaml").write_text(
        "base_model: m\ndatasets: d\npacking: true\nsample_packing: true\nflash_attention: true\nmicro_batch_size: 2\n"
    )
    (tmp_path / "torn.yaml").write_text("model: [a\n")
    code, out, errors = run(*words)
    assert code == 2
    assert out == ""
    for part in said:
        assert part in errors


def test_data_that_fits_no_shape_shows_the_keys_and_the_nearest_one(
    run: Any, tmp_path: Path, llama: Path
) -> None:
    path = write_jsonl(tmp_path / "odd.jsonl", [{"instrction": "a", "output": "b"}])
    code, _, errors = run("train", "--model", llama, "--data", path)
    assert code == 2
    assert "instrction" in errors and "instruction/input/output" in errors


def test_check_counts_every_row_and_exits_1(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(
        b'{"prompt": "a", "completion": "b"}\n[1]\n{"prompt": "c", "completion": ""}\nnot json\n\xff\n'
    )
    code, out, _ = run("check", path, "--json", "--quarantine", tmp_path / "aside.jsonl")
    found = json.loads(out)
    assert (found["rows_in"], found["kept"]) == (5, 1)
    assert [(row["line"], row["code"]) for row in found["rejected"]] == [
        (2, "D056"),
        (3, "D005"),
        (4, "D054"),
        (5, "D051"),
    ]
    assert code == 0, "what is set aside is dealt with"
    aside = [json.loads(line) for line in (tmp_path / "aside.jsonl").read_text().splitlines()]
    assert {row["line"]: row.get("row", row.get("text")) for row in aside} == {
        2: "[1]", 3: {"prompt": "c", "completion": ""}, 4: "not json", 5: "\\xff",
    }  # fmt: skip
    assert run("check", path)[0] == 1
    assert "5 rows in = 1 kept + 4 rejected" in run("check", path)[1]


def test_a_finding_that_one_row_has_twice_is_not_said_of_two_rows(run: Any, tmp_path: Path) -> None:
    rows = [{"prompt": "say <|im_end|>", "completion": "<|im_end|>"}]
    out = run("check", write_jsonl(tmp_path / "rows.jsonl", rows))[1]
    assert "D036 warning  2 times, first " in out


def test_a_question_at_the_end_of_a_message_takes_no_full_stop() -> None:
    finding = Finding("D064", "error", Origin("a.csv", 0), "is it a row?", "Add a first line.")
    assert str(finding) == "a.csv (D064): is it a row? Add a first line."


def test_answers_of_many_line_ends_take_few_lines_of_the_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    answered = {"prompt": "a", "expected": "b", "base": "\n" * 30 + "c", "tuned": "b\nd"}
    show_samples([answered], "before and after")
    out = capsys.readouterr().out
    assert "↵" * 10 in out and len(out.splitlines()) < 10


def test_check_maps_columns_looks_deeper_and_compares_with_an_evaluation_file(
    run: Any, tmp_path: Path
) -> None:
    question = "Which of the many rivers of the northern plains runs past the old mill of the town?"
    rows = [
        {"q": question, "a": "The slow one."},
        {"q": "Who wrote to me?", "a": "Write to jane.doe@riverside-post.net, please."},
    ]
    path = write_jsonl(tmp_path / "odd.jsonl", rows)
    test = write_jsonl(tmp_path / "test.jsonl", [{"question": question, "answer": "x"}])
    assert run("check", path)[0] == 1
    code, out, _ = run(
        "check", path, "--mapping", "prompt=q,completion=a", "--deep", "--against", test, "--json"
    )
    found = json.loads(out)
    assert code == 0
    assert found["kept"] == 2
    assert {(f["code"], f["line"]) for f in found["findings"]} >= {("D038", 1), ("D045", 2)}
    assert "jane.doe" not in out


def test_a_mended_copy_names_each_mend_and_checks_clean(run: Any, tmp_path: Path) -> None:
    path = tmp_path / "rough.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"prompt": "a", "completion": "b"},\r\n{"prompt": "c", "completion": "d"},\r\nlost\n'
    )
    code, out, _ = run("check", path, "--fix", tmp_path / "mended.jsonl")
    assert code == 1
    assert "2 rows written" in out and "1 row not in it" in out
    assert "rough.jsonl:3" in out
    assert run("check", tmp_path / "mended.jsonl", "--strict")[0] == 0


@pytest.mark.parametrize("flag", ["--fix", "--quarantine"])
def test_data_is_never_written_over(run: Any, tmp_path: Path, flag: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "completion": "b"}\nlost\n')
    code, _, errors = run("check", path, flag, path)
    assert code == 2
    assert "is the data itself" in errors
    assert path.read_text() == '{"prompt": "a", "completion": "b"}\nlost\n'


def test_a_share_of_a_source_is_the_same_rows_whatever_is_added(
    run: Any, tmp_path: Path, llama: Path
) -> None:
    rows = [{"prompt": f"p{i}", "completion": "c"} for i in range(40)]
    path = write_jsonl(tmp_path / "many.jsonl", rows)
    words = ("train", "--model", llama, "--data", f"{path}#0.5", "--dry-run", "--json")
    facts = json.loads(run(*words)[1])["facts"]
    assert "left out" in facts["rows"]


def test_the_opening_screen_as_json_has_every_source_every_proof_and_what_a_token_costs(
    run: Any, data: Path, llama: Path, tmp_path: Path
) -> None:
    other = write_jsonl(tmp_path / "other.jsonl", [{"prompt": "p", "completion": "c"}])
    bad = write_jsonl(tmp_path / "bad.jsonl", [{"what": "is this"}])
    named = [word for file in (data, f"{other}#2", bad) for word in ("--data", file)]
    words = ("train", "--model", llama, *named, "--token-loss", "dft", "--micro-batch-size", "1")
    facts = json.loads(run(*words, "--dry-run", "--json")[1])["facts"]
    assert facts["data"].splitlines() == [
        f"{data}  messages (OpenAI chat)",
        f"{other}  prompt/completion",
        f"{bad}  no row has a known shape",
    ]
    assert facts["proof"].count("✓") >= 7
    assert "token_mean (dft)" in facts["plan"] and "at most 1 example in a pass" in facts["machine"]


def test_preview_prints_one_object_an_example(run: Any, data: Path, llama: Path) -> None:
    code, out, _ = run("preview", data, "--model", llama, "--json")
    shown = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert len(shown) == 60
    assert set(shown[0]) == {"file", "line", "part", "ids", "supervised", "text", "learned"}
    assert shown[0]["learned"] == ["it is 0.<|end|>"]
    assert len(shown[0]["ids"]) == len(shown[0]["supervised"])


def test_check_preview_and_prepare_take_every_setting_of_rendering(
    run: Any, tmp_path: Path, llama: Path
) -> None:
    turns = [{"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "a ((b)) c"))]
    path = write_jsonl(tmp_path / "rows.jsonl", [{"messages": turns * 4}])
    words = (path, "--model", llama, "--train-on", "spans", "--set", "span_markers=((,))")
    words = (*words, "--set", "too_long=split", "--set", "max_length=30")
    shown = [json.loads(line) for line in run("preview", *words, "--json")[1].splitlines()]
    assert [text.strip() for row in shown for text in row["learned"]] == ["b"] * 4
    assert len(shown) > 1
    checked = json.loads(run("check", *words, "--json")[1])
    assert (checked["kept"], checked["examples"], set(checked["counts"])) == (1, len(shown), {"R022"})
    prepared = json.loads(run("prepare", *words, "--to", "store", "--val-split", "0", "--json")[1])
    assert prepared["tokens"] == checked["tokens"] == sum(len(row["ids"]) for row in shown)
    assert run("check", *words, "--set", "epochs=2")[0] == 2


def test_preview_as_a_page_says_what_it_shows_and_what_is_rejected(
    run: Any, tmp_path: Path, llama: Path
) -> None:
    rows = [{"prompt": "<script>alert(1)</script>", "completion": "<b>\x1b[2J"}] * 3
    path = write_jsonl(tmp_path / "x.jsonl", rows)
    code, out, _ = run("preview", path, "--model", llama, "--html", "page.html", "--limit", 2)
    assert (code, out) == (0, "2 examples written to page.html; 1 more are counted in it\n")
    page = (tmp_path / "page.html").read_text()
    assert "\x1b" not in page and "<script>alert" not in page
    write_jsonl(path, [*rows, {"prompt": "p", "completion": ""}])
    code, _, err = run("preview", path, "--model", llama, "--html", "page.html")
    assert code == 1 and "without an example: 1 row;" in err


def test_prepared_data_loads_in_datasets_and_is_found_again(
    run: Any, data: Path, llama: Path, tmp_path: Path
) -> None:
    from datasets import load_from_disk

    words = ("prepare", data, "--model", llama, "--to", tmp_path / "store", "--val-split", "0.2", "--json")
    first = json.loads(run(*words)[1])
    rows = load_from_disk(first["folder"])["train"]
    shown = [json.loads(line) for line in run("preview", data, "--model", llama, "--json")[1].splitlines()]
    by_ids = {tuple(row["ids"]): row["supervised"] for row in shown}
    assert len(rows) == first["train_examples"]
    for row in rows:
        labels = [
            token if weight else -100
            for token, weight in zip(row["input_ids"], by_ids[tuple(row["input_ids"])], strict=True)
        ]
        assert row["labels"] == labels
    assert json.loads(run(*words)[1]) == first
    data.write_text(data.read_text().replace("What", "Who ", 1) + "[1]\n")
    code, out, errors = run(*words)
    assert json.loads(out)["folder"] != first["folder"]
    assert (code, json.loads(out)["rejected"]) == (0, 1) and "without an example: 1 of 61 rows" in errors


def test_the_estimate_is_of_the_examples_there_are_and_not_of_a_batch_that_they_do_not_fill(
    run: Any, data: Path, llama: Path
) -> None:
    words = ("train", "--model", llama, "--data", data, "--max-steps", "100000", "--dry-run", "--json")

    def tokens(batch_size: int) -> float:
        estimate = json.loads(run(*words, "--batch-size", batch_size)[1])["facts"]["estimate"]
        amount, unit = estimate.split()[:2]
        speed = float(re.search(r"\(([\d,]+) tokens/s", estimate)[1].replace(",", ""))  # type: ignore[index]
        return float(amount) * {"s": 1, "min": 60, "h": 3600}[unit] * speed

    assert tokens(60_000) == pytest.approx(tokens(60), rel=0.2)


def test_the_count_of_updates_and_the_time_left_are_seen_on_a_narrow_terminal() -> None:
    written = io.StringIO()
    screen = Terminal(Console(file=written, width=80, force_terminal=True, color_system=None))
    screen.begin(12_000, 0)
    screen.evaluation(EvalReport(0, {"loss": 5.5, "bits_per_byte": 7.5, "tokens": 9.0}))
    screen.step(StepReport(600, 0.5, 5.4321, 2e-4, 1.0, 100, 0, 50, 0.1, 123_456.7))
    screen.end()
    last = [line for line in written.getvalue().splitlines() if "training" in line][-1]
    assert "600/12000" in last and "loss 5.4321" in last and "left" in last and "…" not in last


def test_dry_run_says_what_will_be_learned_and_writes_nothing(
    run: Any, data: Path, llama: Path, tmp_path: Path
) -> None:
    before = set(tmp_path.rglob("*"))
    code, out, errors = run("train", "--model", llama, "--data", data, "--epochs", "1", "--dry-run")
    assert code == 0
    assert out == ""
    for said in (
        "60 in, 60 kept, 0 rejected",
        "messages (OpenAI chat)",
        "are learned",
        "updates of 16",
        "of memory",
    ):
        assert said in " ".join(errors.split())
    assert set(tmp_path.rglob("*")) == before


def test_a_conversation_that_fills_the_context_begins_anew_and_goes_on(
    run: Any, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hi\n" + "word " * 600 + "\nHi\n\n"))
    code, out, errors = run("chat", llama, "--max-new-tokens", 3)
    first, last = out.splitlines()[0], out.splitlines()[-1]
    assert code == 0 and first == last, "the second greeting is a first one again"
    assert "fills the model's context" in errors and "forgotten now" in errors


def test_the_journey_on_ones_own_file(run: Any, llama: Path, tmp_path: Path) -> None:
    assert run("init", "mine")[0] == 0
    assert run("init", "mine")[0] == 2
    code, out, _ = run(
        "train", "mine/recipe.yaml", "--data", "mine/data.jsonl", "--model", llama, "--max-steps", "3"
    )
    assert code == 0
    assert "outputs/data/report.html" in out
    run_folder = "outputs/data"
    code, out, _ = run(
        "evaluate",
        run_folder,
        "--data",
        "mine/data.jsonl",
        "--baseline",
        llama,
        "--max-new-tokens",
        4,
        "--json",
    )
    result = json.loads(out)
    assert code == 0
    assert set(result["held_out"]) == {
        "loss", "perplexity", "bits_per_byte", "tokens", "examples", "token_accuracy", "intervals"
    }  # fmt: skip
    assert result["comparison"]["tuned"]["count"] == 20
    code, out, _ = run("generate", run_folder, "--prompt", "Hi", "--max-new-tokens", 3, "--json")
    assert set(json.loads(out)) == {"prompt", "answer", "tokens", "stopped"}
    code, out, _ = run("generate", run_folder, "--data", "mine/data.jsonl", "--max-new-tokens", 3)
    assert len(out.splitlines()) == 20
    assert run("export", run_folder, "--to", "exported")[0] == 0
    assert run("export", run_folder, "--to", "exported")[0] == 2
    assert run("generate", "exported", "--prompt", "Hi", "--max-new-tokens", 3)[0] == 0


def test_evaluate_judges_conditions_and_says_each(run: Any, llama: Any, tmp_path: Path) -> None:
    rows = [{"prompt": f"What is {n}?", "completion": f"{n}"} for n in range(4)]
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ("--data", str(tmp_path / "held.jsonl"), "--metric", "number,f1", "--max-new-tokens", 2)
    code, out, _ = run("evaluate", llama, *data, "--require", "loss<=1000", "--require", "f1>=0")
    assert code == 0
    assert "met: loss<=1000 (it is" in out and "met: f1>=0" in out
    assert "only 4 prompts" in out and "token accuracy" in out
    code, out, _ = run("evaluate", llama, *data, "--require", "loss<=0.001")
    assert code == 1
    assert "NOT MET: loss<=0.001 (it is" in out
    assert run("evaluate", llama, *data, "--require", "loss=1")[0] == 2
    with (tmp_path / "held.jsonl").open("a") as stream:
        stream.write('{"completion": 5}\n')
    code, _, err = run("evaluate", llama, *data, "--require", "loss<=1000")
    assert (code, "1 of 5 rows could not be scored; the first: " in err and "held.jsonl:5 (D" in err) == (
        0,
        True,
    )
    assert run("evaluate", llama, *data)[0] == 1, "nothing was demanded but that rows be scored"
    code, out, _ = run("evaluate", llama, "--harness", "hellaswag")
    assert code == 0
    assert "-m lm_eval --model hf" in out and "--tasks hellaswag" in out


def test_an_interrupted_evaluation_says_how_to_go_on(
    run: Any, llama: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    from tuition.evaluate.kept import Kept

    rows = [{"prompt": "go on " * n, "completion": f"{n}"} for n in range(1, 5)]
    (tmp_path / "held.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("TUITION_CACHE", str(tmp_path / "cache"))
    add = Kept.add

    def stop_after_two(book: Any, key: str, thing: Any, row: Any) -> None:
        add(book, key, thing, row)
        if len(book.found) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(Kept, "add", stop_after_two)
    command = ("evaluate", llama, "--data", tmp_path / "held.jsonl", "--max-new-tokens", 2)
    code, _, err = run(*command)
    assert code == 130
    assert "what was found so far is kept. The same command goes on from there" in err
    monkeypatch.setattr(Kept, "add", add)
    assert run(*command)[0] == 0
    kept = [file.read_text().splitlines() for file in (tmp_path / "cache" / "answers").iterdir()]
    assert sorted(map(len, kept)) == [1 + 1, 1 + 4], "what was found of the loss, and four answers"


def test_train_takes_every_setting_as_a_flag(run: Any) -> None:
    from tuition.recipe import Recipe

    _, out, _ = run("train", "--help")
    for name in Recipe.model_fields:
        assert f"--{name.replace('_', '-')}" in out


def test_schema_doctor_explain_and_version_answer(run: Any) -> None:
    assert "learning_rate" in json.loads(run("schema")[1])["properties"]
    examined = json.loads(run("doctor", "--json")[1])
    assert {check["name"] for check in examined["checks"]} >= {"python", "torch", "device", "disk"}
    assert "no assistant turn" in run("explain", "d004")[1]
    assert json.loads(run("explain", "R002", "--json")[1])["code"] == "R002"
    assert "default 16" in run("explain", "batch_size")[1]
    assert "Longest example in tokens" in run("explain", "max-seq-length")[1]
    assert "share a pass without padding" in run("explain", "packing")[1]
    assert run("--version")[1].strip()


def test_recipes_cannot_run_code(run: Any, tmp_path: Path) -> None:
    (tmp_path / "evil.yaml").write_text("model: !!python/object/apply:os.system ['touch owned']\n")
    code, _, errors = run("train", "evil.yaml")
    assert code == 2
    assert "cannot be read as YAML" in errors
    assert not (tmp_path / "owned").exists()


def test_ctrl_c_before_the_first_update_says_that_nothing_was_begun(
    run: Any, tmp_path: Path, llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*words: Any, **settings: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tuition.api.train", interrupted)
    code, out, errors = run("train", "--model", llama, "--data", "rows.jsonl")
    assert (code, out) == (130, "")
    assert "stopped before the first update; there is no run to resume" in errors


def test_a_hub_that_cannot_be_reached_is_said_to_be_so(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    def unreachable(*words: Any, **settings: Any) -> None:
        raise ConnectionError("[Errno -2] Name or service not known An error happened while trying to locate")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    code, _, errors = run("generate", "owner/name", "--prompt", "a")
    assert code == 2
    assert (
        "owner/name: there is no such folder, and the hub could not be reached. Check the spelling" in errors
    )


def test_rows_longer_than_the_model_holds_are_seen_by_check_as_by_train(
    run: Any, tmp_path: Path, llama: Path
) -> None:
    path = write_jsonl(tmp_path / "long.jsonl", [{"prompt": "a", "completion": "word " * 600}])
    code, out, _ = run("check", path, "--model", llama)
    assert code == 1
    assert "R014" in out and "max_length 512" in out


def test_check_and_train_show_the_same_findings_and_the_same_unread_files(run: Any, tmp_path: Path) -> None:
    dated = "{% set today = strftime_now('%Y') %}" + CHAT
    model = make_model(tmp_path / "dated", tokenizer=make_tokenizer(template=dated))
    rows = [{"prompt": "q", "completion": answer} for answer in "ab"]
    folder = tmp_path / "rows"
    folder.mkdir()
    write_jsonl(folder / "train.jsonl", rows)
    write_jsonl(folder / "more.jsonl", rows)
    check = run("check", folder, "--model", model)
    train = run("train", "--model", model, "--data", folder, "--dry-run")
    for said in (check[1] + check[2], train[2]):
        assert set(re.findall(r"[DR]0\d\d(?= (?:info|warning))", said)) == {"D077", "R028"}
        assert f"they name no split beside files that do: {folder / 'more.jsonl'}" in said.replace("\n", "")


def test_memory_that_runs_out_is_no_defect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def too_much() -> None:
        raise MemoryError

    monkeypatch.setattr(entry, "app", too_much)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # which the command sets
    with pytest.raises(SystemExit) as left:
        entry.main()
    assert left.value.code == 2
    assert capsys.readouterr().err.startswith("tuition: memory ran out")
