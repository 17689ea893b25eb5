"""Everything that one call of `evaluate` asks, on a run of a tiny model."""

import json
from pathlib import Path

import pytest

import tuition
from tests.conftest import make_tokenizer, write_jsonl
from tests.evaluate.test_judge import Server
from tuition import api
from tuition.conversation import Conversation, Message
from tuition.errors import Origin, UserError
from tuition.evaluate.demonstrations import suspicions_of
from tuition.evaluate.forgetting import find_general, read_general
from tuition.evaluate.lines import all_lines
from tuition.evaluate.load import load_answerer


@pytest.fixture(scope="module")
def trained(llama, rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    data = write_jsonl(folder / "data.jsonl", rows)
    return tuition.train(
        model=str(llama), data=str(data), output_dir=str(folder / "run"), batch_size=8, max_steps=30,
        learning_rate=1e-2, val_split=0, samples=0,
    )  # fmt: skip


@pytest.fixture
def held(tmp_path, rows):
    return str(write_jsonl(tmp_path / "held.jsonl", rows[:35]))


def kept(run):
    return json.loads((run.path / "evaluation.json").read_text())


def test_rows_from_python_are_scored_as_those_of_a_file(trained, rows, held, tmp_path):
    from datasets import Dataset

    (tmp_path / "mine.py").write_text("def score(answer, expected, row): return float('messages' in row)")
    options = {"metric": ["number", f"python:{tmp_path / 'mine.py'}:score"], "max_new_tokens": 8, "limit": 5}
    named = trained.evaluate(held, **options)
    for given in (rows[:35], Dataset.from_list(rows[:35])):
        found = trained.evaluate(given, **options)
        assert (found.held_out.loss, found.scores) == (named.held_out.loss, named.scores)
    with pytest.raises(UserError, match="<python>: no row can be scored"):
        trained.evaluate([{"prompt": "a"}])
    choices = [{"question": "1 and 1?", "choices": ["2", "7"], "answer": 0}]
    assert trained.evaluate(choices, metric="choice").scores["choice"].count == 1


def test_several_metrics_are_scored_on_the_same_answers(trained, llama, held):
    calls = []
    found = trained.evaluate(
        held,
        baseline=str(llama),
        metric="number,contains",
        max_new_tokens=8,
        on_progress=lambda *c: calls.append(c),
    )
    assert list(found.scores) == ["number", "contains"]
    assert [c.metric for c in found.comparisons] == ["number", "contains"]
    assert found.metric == "number" and found.comparison == found.comparisons[0]
    assert {name for name, _, _ in calls} == {
        f"{what} {m}" for what in ("scoring", "answering") for m in (trained.path, llama)
    }
    assert calls[-1][1:] == (35, 35)
    assert [c["metric"] for c in kept(trained)["comparisons"]] == ["number", "contains"]
    assert found.differences["loss"].value == pytest.approx(found.held_out.loss - found.base_held_out.loss)
    assert found.differences["loss"].high < 0, "training taught these very rows"
    assert found.held_out.intervals["loss"].low < found.held_out.loss < found.held_out.intervals["loss"].high


def test_rows_that_were_trained_on_are_counted_and_not_called_held_out(trained, llama, tmp_path, rows):
    new = [{"prompt": f"Name {n}?", "completion": "x"} for n in range(3)]
    mixed = str(write_jsonl(tmp_path / "mixed.jsonl", [*rows[:5], *new]))
    found = trained.evaluate(mixed, baseline=str(llama), max_new_tokens=2)
    said = "5 of these 8 were trained on"
    assert (found.overlap.rows, found.overlap.trained_on) == (8, 5)
    assert any(said in line for line in all_lines(found)) and said in found.to_json()["overlap"]["caution"]
    report = (trained.path / "report.html").read_text()
    assert said in report and "on 8 questions" in report
    unseen = str(write_jsonl(tmp_path / "new.jsonl", new))
    found = trained.evaluate(unseen, metric=None)
    assert (found.overlap.rows, found.overlap.trained_on) == (3, 0)
    assert kept(trained)["overlap"]["trained_on"] == 5, "the comparison of those eight still stands there"
    trained.evaluate(unseen, baseline=str(llama), max_new_tokens=2)
    assert "on 3 held-out questions" in (trained.path / "report.html").read_text()
    assert api.evaluate(str(llama), mixed, metric=None).overlap is None, "nobody knows what it learned from"


def test_one_row_decides_nothing(trained, llama, tmp_path, rows):
    one = str(write_jsonl(tmp_path / "one.jsonl", rows[:1]))
    said = list(all_lines(trained.evaluate(one, baseline=str(llama), max_new_tokens=2)))
    assert any(
        line.startswith("loss, tuned − base: -") and line.endswith("token: not decided") for line in said
    )
    assert any(line.startswith("only 1 prompt: ") for line in said)
    assert not any("[" in line for line in said)


def test_the_limit_is_of_the_answers_and_not_of_the_loss(trained, held):
    found = trained.evaluate(held, limit=20, max_new_tokens=2)
    assert "loss over 35 examples, answers to 20 prompts" in all_lines(found)


def test_the_starter_is_called_what_the_user_calls_it(held):
    calls = set()
    found = api.evaluate("starter", held, metric=None, on_progress=lambda name, *_: calls.add(name))
    assert calls == {"scoring starter"}
    assert any(line.startswith("starter: loss") for line in all_lines(found))


def test_an_own_metric_sees_the_row_of_the_file(trained, tmp_path):
    data = write_jsonl(
        tmp_path / "own.jsonl", [{"prompt": f"{n}?", "completion": "x", "worth": n} for n in range(4)]
    )
    (tmp_path / "mine.py").write_text("def grade(answer, expected, row):\n    return row['worth']\n")
    found = trained.evaluate(str(data), metric=f"python:{tmp_path}/mine.py:grade", max_new_tokens=2)
    assert found.score.value == 1.5


def test_choices_are_scored_without_writing(trained, llama, tmp_path):
    rows = [
        {"question": f"What is {n} and {n}?", "choices": ["it is 4.", "Paris?!"], "answer": 0}
        for n in range(5)
    ]
    data = write_jsonl(tmp_path / "mc.jsonl", rows)
    found = trained.evaluate(str(data), baseline=str(llama), metric="choice")
    assert found.score.value == 1
    assert {a.tuned for a in found.comparison.wins} <= {"it is 4."}


def test_what_was_forgotten_is_measured_against_the_models_own_base(trained):
    found = trained.evaluate(general="starter", most_forgotten=0.0)
    forgetting = found.forgetting
    assert forgetting.rows_in == 200
    assert forgetting.difference.value == pytest.approx(
        forgetting.tuned.bits_per_byte - forgetting.base.bits_per_byte
    )
    assert forgetting.exceeded and not found.passed
    assert "replay:" in kept(trained)["forgetting"]["advice"]
    assert trained.evaluate(general="starter", most_forgotten=100.0).passed


def test_general_text_is_read_by_paragraphs_or_by_lines(llama, tmp_path):
    (tmp_path / "lines.txt").write_text("One.\nTwo.\n")
    (tmp_path / "prose.md").write_text("A long\nparagraph.\n\n\nAnother.\n")
    renderer = load_answerer(str(llama), device="cpu").renderer
    text = read_general(renderer, find_general([str(tmp_path / name) for name in ("lines.txt", "prose.md")]))
    places = [(Path(e.origin.file).name, e.origin.line) for e in text.examples]
    assert places == [("lines.txt", 1), ("lines.txt", 2), ("prose.md", 1), ("prose.md", 5)]
    assert (text.rows_in, text.left) == (4, 0)
    with pytest.raises(UserError, match=r"none\.txt: there is no such file"):
        read_general(renderer, find_general([str(tmp_path / "none.txt")]))


def test_a_condition_decides_whether_the_model_passes(trained, held):
    good = trained.evaluate(held, metric=None, require=["loss<=baseline-0.01", "perplexity<1e9"])
    assert [j.met for j in good.gate] == [True, True] and good.passed
    bad = trained.evaluate(held, metric=None, require="loss<=0")
    assert not bad.passed
    assert kept(trained)["gate"][0]["condition"] == "loss<=0"
    named = trained.evaluate(held, metric=None, require="f1>=2", max_new_tokens=2)
    assert list(named.scores) == ["f1"], "a condition's metric is measured without being asked for twice"
    with pytest.raises(UserError, match="'forgetting' is not measured"):
        trained.evaluate(held, metric=None, require="forgetting<=1")


def test_every_demonstration_is_shown_before_and_after(trained, tmp_path, rows):
    wrong = {
        "messages": [
            {"role": "user", "content": "What is 3 and 3?"},
            {"role": "assistant", "content": "zq Xj é %"},
        ]
    }
    fresh = {"prompt": "Whose is the lamp by the old harbour?", "completion": "Mine."}
    data = write_jsonl(tmp_path / "rows.jsonl", [*rows[:12], wrong, fresh, {"messages": []}])
    found = trained.evaluate(rows=str(data))
    shown = found.demonstrations
    assert [row.line for row in shown] == list(range(1, 15))
    assert [entry["line"] for entry in found.rejected] == [15]
    assert all(row.learned and row.after < row.before for row in shown[:12])
    assert [row.line for row in shown if any("answers otherwise" in why for why in row.suspicions)] == [4, 13]
    assert any("loss after training" in why for why in shown[12].suspicions)
    assert f"{data}:4 asks nearly the same and answers otherwise" in shown[12].suspicions
    lines = (trained.path / "demonstrations.jsonl").read_text().splitlines()
    assert len(lines) == 14
    assert [row.line for row in shown if row.held_out] == [14], "of its prompt nothing was learned"
    place = f"{data}:13"
    assert any(place in line and "answers otherwise" in line for line in all_lines(found))
    assert place in (trained.path / "report.html").read_text(), "the report shows the row with its place"
    assert kept(trained)["demonstrations"]["suspicious"] == sum(bool(row.suspicions) for row in shown)


def test_near_copies_of_a_question_with_another_answer_look_wrong():
    long = "Please tell me in one word and without any explanation what the capital city of France is called today"
    asked = [
        (long, "Paris"),
        (f"{long}!", "Lyon"),
        (f"{long} now", "Rome"),
        ("Who?", "Me"),
        (f"{long}?", "paris."),
    ]
    conversations = [
        Conversation((Message("user", q), Message("assistant", a)), Origin("x.jsonl", n))
        for n, (q, a) in enumerate(asked, 1)
    ]
    assert {line for _, line in suspicions_of(conversations, {})} == {1, 2, 3, 5}
    same = [c for c in conversations if c.origin.line in (1, 4, 5)]
    assert suspicions_of(same, {}) == {}


def test_a_judge_compares_the_answers_of_run_and_base(trained, held):
    server = Server(lambda text: "VERDICT: A")
    try:
        found = trained.evaluate(
            held, metric=None, judge=server.judge, limit=3, max_new_tokens=4, require="judge>=0.5"
        )
    finally:
        server.http.shutdown()
        server.http.server_close()
    assert (found.judge.ties, found.judge.score.value) == (3, 0.5)
    assert found.passed and found.metric == "loss"
    assert kept(trained)["judge"]["order_decided"] == len(server.asked) / 2
    assert (trained.path / "answers" / "judge.jsonl").exists() == bool(server.asked)


def test_nothing_to_score_and_no_base_are_errors(llama, held):
    with pytest.raises(UserError, match="nothing to score"):
        api.evaluate(str(llama))
    with pytest.raises(UserError, match="no-such-model"):
        api.evaluate("./no-such-model")
    with pytest.raises(UserError, match="which model this one came from"):
        api.evaluate(str(llama), rows=held)


def test_the_harness_command_names_the_weights_of_the_run(trained, tmp_path):
    command = api.harness_command(str(trained.path), "hellaswag, arc_easy", python="py")
    assert command[:5] == ["py", "-m", "lm_eval", "--model", "hf"]
    assert command[command.index("--model_args") + 1] == f"pretrained={trained.path / 'model'}"
    assert command[command.index("--tasks") + 1] == "hellaswag,arc_easy"
    assert "--apply_chat_template" in command
    assert command[command.index("--output_path") + 1 :] == [str(trained.path / "harness"), "--log_samples"]
    plain = tmp_path / "plain"
    make_tokenizer(template=None).save_pretrained(plain)
    assert "--apply_chat_template" not in api.harness_command(str(plain), "x")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    make_tokenizer().save_pretrained(adapter)
    (adapter / "adapter_config.json").write_text('{"base_model_name_or_path": "org/base", "revision": "v1"}')
    command = api.harness_command(str(adapter), "x")
    assert f"pretrained=org/base,peft={adapter},tokenizer={adapter},revision=v1" in command
    assert "--log_samples" not in command, "there is no run folder to keep them in"
    with pytest.raises(UserError, match="no task is named"):
        api.harness_command(str(trained.path), " ")


def test_the_harness_runs_where_it_can_be_imported(tmp_path: Path):
    import sys

    from tuition.evaluate.harness import run_harness

    with pytest.raises(UserError, match="lm_eval cannot be imported there"):
        run_harness([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(UserError, match="cannot be started"):
        run_harness([str(tmp_path / "no-python")])


def test_a_model_that_learned_spans_is_scored_without_the_markers(llama, tmp_path):
    def rows(opening, closing):
        answers = [f"It is {opening}{n}{closing}." for n in range(12)]
        return [{"prompt": f"What is {n}?", "completion": answer} for n, answer in enumerate(answers)]

    marked = write_jsonl(tmp_path / "marked.jsonl", rows("<learn>", "</learn>"))
    plain = write_jsonl(tmp_path / "plain.jsonl", rows("", ""))
    run = tuition.train(
        model=str(llama), data=str(marked), output_dir=str(tmp_path / "run"), train_on="spans",
        max_steps=1, val_split=0, samples=0,
    )  # fmt: skip
    assert run.evaluate(str(marked), metric=None).held_out == run.evaluate(str(plain), metric=None).held_out
    unpaired = write_jsonl(
        tmp_path / "unpaired.jsonl", [*rows("", ""), {"prompt": "a", "completion": "<learn>b"}]
    )
    found = run.evaluate(str(unpaired), metric=None)
    assert (found.rows_in, [entry["code"] for entry in found.rejected]) == (13, ["R025"])


def test_a_run_is_scored_on_what_it_held_out_where_no_data_is_named(llama, tmp_path, rows):
    data = write_jsonl(tmp_path / "data.jsonl", rows[:40])
    run = tuition.train(
        model=str(llama),
        data=str(data),
        output_dir=str(tmp_path / "run"),
        val_split=0.2,
        max_steps=1,
        samples=0,
    )
    found = run.evaluate(metric=None)
    held_out = run_facts(run)["data"]["validation_examples"]
    assert found.rows_in == found.held_out.examples == held_out
    assert found.overlap.trained_on == 0
    assert (
        next(all_lines(found))
        == f"no --data was given: the {held_out} rows of data.jsonl that training held out"
    )
    asked = run.evaluate(metric=None, require="f1>=0", limit=2)
    assert asked.passed and [score.count for score in asked.scores.values()] == [2]
    with pytest.raises(UserError, match="Name the rows: --data FILE"):
        run.evaluate(metric="choice")
    ledger = (run.path / "ledger.jsonl").read_text()
    (run.path / "ledger.jsonl").write_text(ledger + '{"file": "da')
    with pytest.raises(UserError, match="nothing readable says"):
        run.evaluate(metric=None)
    (run.path / "ledger.jsonl").write_text(ledger)
    write_jsonl(data, rows[1:41])
    with pytest.raises(UserError, match="no longer what the run read"):
        run.evaluate()
    data.unlink()
    with pytest.raises(UserError, match=r"cannot be found.*where training ran"):
        run.evaluate()


@pytest.mark.parametrize("share", ["#0.5", "#2"])
def test_all_rows_that_a_run_held_out_are_scored_once_whatever_share_and_columns_it_read(
    llama, tmp_path, rows, share
):
    texts = [[message["content"] for message in row["messages"]] for row in rows]
    named = [{"asked": asked, "reply": reply} for asked, reply in texts]
    data = write_jsonl(tmp_path / "data.jsonl", named)
    run = tuition.train(
        model=str(llama), data=f"{data}{share}", mapping={"prompt": "asked", "completion": "reply"}, seed=3,
        output_dir=str(tmp_path / "run"), val_split=0.2, max_steps=1, samples=0,
    )  # fmt: skip
    found, facts = run.evaluate(metric=None), run_facts(run)
    scored_in_training = facts["data"]["validation_examples"] // (2 if share == "#2" else 1)
    assert found.rows_in == found.held_out.examples == scored_in_training
    assert found.held_out.loss == pytest.approx(facts["result"]["best_eval_loss"], rel=1e-5)


def run_facts(run):
    return json.loads((run.path / "run.json").read_text())


def test_held_out_files_are_scored_where_no_data_is_named(llama, tmp_path, rows):
    data = write_jsonl(tmp_path / "data.jsonl", rows[:20])
    held_out = write_jsonl(tmp_path / "val.jsonl", rows[20:24])
    run = tuition.train(
        model=str(llama), data=str(data), val_data=str(held_out), output_dir=str(tmp_path / "run"),
        max_steps=1, samples=0,
    )  # fmt: skip
    assert run.evaluate(metric=None).held_out == run.evaluate(str(held_out), metric=None).held_out


def test_a_mistyped_run_is_refused_before_the_hub_is_asked(trained, monkeypatch):
    monkeypatch.chdir(trained.path.parent.parent)
    folder = trained.path.parent.name
    with pytest.raises(UserError, match=f"there is no such folder. Runs there are {folder}/run"):
        api.evaluate(f"{folder}/rnu")
    with pytest.raises(UserError, match="there is no such folder"):
        api.load(f"{folder}/rnu")


def test_a_mistyped_run_is_told_once_and_a_bare_name_is_shown_where_it_lies(trained, monkeypatch, capsys):
    from tuition.cli.shared import _say_that_it_is_no_folder as say

    monkeypatch.chdir(trained.path.parent.parent)
    say(f"{trained.path.parent.name}/rnu")
    assert capsys.readouterr().err == "", "the refusal that follows names the runs, and no hub is asked"
    Path("outputs").symlink_to(trained.path.parent)
    say("run")
    assert (
        "run is no folder here (but outputs/run is); it is looked for on the hub" in capsys.readouterr().err
    )
    Path("outputs").unlink()
