"""How a run is judged while it learns: which checkpoint becomes the model, when it stops, what it forgot."""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import tuition
from tests.conftest import write_jsonl
from tests.test_run import StopAt, lines, weights_of
from tuition import api, cli
from tuition.errors import Interrupted, UserError
from tuition.recipe import Recipe, Section
from tuition.train.checkpoint import Progress
from tuition.train.choosing import Choosing, note_figures


def result_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())["result"]


def untimed(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines(run / "metrics.jsonl")]


@pytest.fixture
def planted(settings: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    """Rows that must be memorised, some held out as they are, and some held out with another answer.

    The longer it learns, the more of the former it answers right, and the surer it is of the latter's wrong answer.
    """
    chance = random.Random(1)
    facts = [(f"{i}?", chance.choice(["Ann", "Bob", "Cyd", "Dan"])) for i in range(12)]
    others = [(question, "Eve" if i % 2 else "Fay") for i, (question, _) in enumerate(facts[:6])]
    pairs = {"learn": facts, "held": facts[6:] + others}
    paths = {
        name: write_jsonl(tmp_path / f"{name}.jsonl", [{"prompt": q, "completion": a} for q, a in rows])
        for name, rows in pairs.items()
    }
    return {
        **settings, "data": str(paths["learn"]), "val_data": str(paths["held"]), "samples": 0, "max_steps": 80,
        "eval_every_steps": 4, "eval_metrics_every_steps": 4, "eval_max_new_tokens": 6, "save_every_steps": 20,
        "learning_rate": 1e-2,
    }  # fmt: skip


@pytest.mark.usefixtures("few_questions_of_one_reader")
def test_in_an_overfit_run_the_best_by_answers_is_not_the_best_by_loss_and_is_the_one_exported(
    planted: dict[str, Any], tmp_path: Path
) -> None:
    run = tuition.train(**{**planted, "best_by": "exact_match"})
    measured = [
        line for line in lines(run.path / "metrics.jsonl") if "eval_exact_match" in line and line["step"]
    ]
    by_loss = min(measured, key=lambda line: line["eval_loss"])
    by_answers = max(measured, key=lambda line: line["eval_exact_match"])
    assert by_loss["eval_exact_match"] < by_answers["eval_exact_match"]
    assert by_answers["eval_loss"] > by_loss["eval_loss"] + 0.1
    result = result_of(run.path)
    assert result["best_step"] == by_answers["step"] != by_loss["step"]
    assert result["kept"] | {"average": None, "sentence": None} == {
        "steps": [by_answers["step"]], "by": "exact_match", "value": by_answers["eval_exact_match"],
        "average": None, "sentence": None,
    }  # fmt: skip
    checkpoint = load_file(run.path / "checkpoints" / f"step-{by_answers['step']}" / "weights.safetensors")
    exported = load_file(run.export(tmp_path / "exported") / "model.safetensors")
    assert all(torch.equal(exported[name], tensor) for name, tensor in checkpoint.items())
    again = tuition.evaluate(str(run.path), planted["val_data"], metric="exact_match", max_new_tokens=6)
    assert again.score is not None and again.score.value == by_answers["eval_exact_match"]


def test_with_all_of_it_on_an_interrupted_run_ends_as_one_that_was_not(
    planted: dict[str, Any], tmp_path: Path
) -> None:
    planted |= {
        "best_by": "exact_match", "eval_metrics": "contains,f1", "early_stopping_patience": 3,
        "average_checkpoints": 3, "keep_every_epoch": True, "general": "starter", "dropout": 0.1,
    }  # fmt: skip
    whole = tuition.train(**{**planted, "output_dir": str(tmp_path / "whole")})
    stopped = result_of(whole.path)
    assert stopped["stopped_early"] and stopped["step"] < 80
    cut = {**planted, "output_dir": str(tmp_path / "cut")}
    with pytest.raises(Interrupted):
        tuition.train(**cut, watcher=StopAt(7))
    with pytest.raises(Interrupted):
        tuition.train(tmp_path / "cut", resume=True, watcher=StopAt(stopped["step"] - 2))
    resumed = tuition.train(tmp_path / "cut", resume=True)
    assert untimed(resumed.path) == untimed(whole.path)
    assert all(torch.equal(t, weights_of(resumed.path)[n]) for n, t in weights_of(whole.path).items())
    measured_in_time = {"seconds", "tokens_per_second", "peak_memory_bytes"}
    ends = [
        {k: v for k, v in result_of(r.path).items() if k not in measured_in_time} for r in (whole, resumed)
    ]
    assert ends[0] == ends[1]
    kept = {p.name for p in (whole.path / "checkpoints").iterdir()}
    assert {f"step-{step}" for step in range(2, stopped["step"] + 1, 2)} <= kept, (
        "every epoch has two updates"
    )


def test_the_average_is_kept_only_where_it_measures_better(planted: dict[str, Any], tmp_path: Path) -> None:
    planted |= {"lr_scheduler": "constant", "save_every_steps": 4, "average_checkpoints": 3, "max_steps": 16}
    for name, options in {
        "noisy": {"learning_rate": 2e-2, "keep": "last"},
        "young": {"learning_rate": 1e-3},
    }.items():
        run = tuition.train(**{**planted, **options, "output_dir": str(tmp_path / name)})
        kept = result_of(run.path)["kept"]
        average = kept["average"]
        assert average["steps"] == [8, 12, 16]
        assert average["is_kept"] == (average["value"] < average["value_without"]) == (name == "noisy")
        assert ("is kept" in kept["sentence"]) == average["is_kept"]
        assert kept["sentence"][1:] in (run.path / "report.html").read_text()
        assert kept["sentence"] in json.loads((run.path / "run.json").read_text())["sittings"][-1]["notes"]
        parts = [
            load_file(run.path / f"checkpoints/step-{step}/weights.safetensors") for step in kept["steps"]
        ]
        for tensor_name, tensor in weights_of(run.path).items():
            mean = torch.stack([part[tensor_name].double() for part in parts]).mean(0)
            torch.testing.assert_close(tensor.double(), mean, rtol=0, atol=1e-7)


def test_the_best_checkpoints_are_averaged_on_demand(planted: dict[str, Any]) -> None:
    run = tuition.train(**{**planted, "average_checkpoints": 2, "average_of": "best", "max_steps": 24})
    losses = {
        line["step"]: line["eval_loss"] for line in lines(run.path / "metrics.jsonl") if "eval_loss" in line
    }
    del losses[0]
    assert result_of(run.path)["kept"]["average"]["steps"] == sorted(sorted(losses, key=losses.get)[:2])


def test_of_equal_figures_the_first_stays_the_best_and_patience_counts_from_it() -> None:
    progress, choosing = Progress(), Choosing("exact_match", best_kept=2, patience=3)
    seen = []
    for step, value in ((1, 0.2), (2, 0.5), (3, 0.5), (4, 0.4), (5, 0.5)):
        progress.step = step
        seen.append(note_figures(progress, {"exact_match": value, "loss": 1.0}, choosing))
        assert progress.stopped_early == (step == 5)
    assert seen == [True, True, True, False, False]
    assert (progress.best_step, progress.best_steps) == (2, (2, 3))


def test_a_figure_that_is_not_a_number_is_never_the_best() -> None:
    progress = Progress(step=1)
    assert not note_figures(progress, {"loss": float("nan")}, Choosing())
    progress.step = 2
    assert note_figures(progress, {"loss": 3.0}, Choosing())
    assert (progress.best_step, progress.evaluations_without_gain) == (2, 0)


def test_by_default_looking_takes_at_most_a_fifth_of_the_run() -> None:
    from tuition.batch import Plan
    from tuition.training.judging import _every_steps

    plan = Plan(examples=1000, batch_size=10, steps=200, seed=0)
    for learning, evaluation in ((1000.0, 1.0), (1000.0, 30.0), (1000.0, 150.0)):
        looks = plan.steps // _every_steps(plan, learning, evaluation)
        assert looks * evaluation <= 0.2 * learning and looks <= 10
    assert _every_steps(plan, 10.0, 100.0) == plan.steps, "one look at the end, whatever it takes"


@pytest.mark.parametrize(
    "options, complaint",
    [
        ({"val_split": 0.0, "best_by": "exact_match"}, r"best_by: no row is held out"),
        ({"val_split": 0.0, "early_stopping_patience": 2}, r"early_stopping_patience: no row is held out"),
        ({"eval_metrics": "exactmatch"}, "there is no metric 'exactmatch'"),
        ({"eval_metrics": "choice"}, "'choice' scores no written answers"),
        ({"general": "nowhere.txt"}, "nowhere.txt: there is no such file"),
        ({"metric_for_best_model": "loss"}, "here it is 'best_by'"),
        ({"loss": "dft"}, r"dft is a value of 'token_loss'"),
        ({"packing": False}, r"never changes the result; micro_batch_size: 1"),
    ],
)
def test_what_cannot_be_judged_is_refused_at_the_door(
    settings: dict[str, Any], options: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(UserError, match=complaint):
        tuition.train(**{**settings, **options})
    assert not Path(settings["output_dir"]).exists()


def test_what_was_forgotten_fails_the_gate_and_suggests_replay(
    settings: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    general = tmp_path / "general.txt"
    general.write_text("".join(f"it is {2 * i}.\n" for i in range(20)))
    first = tuition.train(**{**settings, "max_steps": 30, "samples": 0})
    options = {"model": str(first.path / "model"), "general": str(general), "max_steps": 20, "samples": 0}
    other = write_jsonl(
        tmp_path / "other.jsonl", [{"prompt": f"p{i}", "completion": "ZZ QQ ZZ"} for i in range(20)]
    )
    flags = {
        **settings,
        **options,
        "data": str(other),
        "output_dir": str(tmp_path / "second"),
        "learning_rate": 1e-2,
    }
    monkeypatch.setattr(
        sys, "argv", ["tuition", "train", *(f"--set={key}={value}" for key, value in flags.items())]
    )
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    facts = json.loads((tmp_path / "second" / "run.json").read_text())
    assert facts["status"] == "finished" and facts["forgetting"]["exceeded"]
    printed = capsys.readouterr().out
    assert facts["forgetting"]["sentence"] in printed and "replay:" in printed
    again = api.evaluate(str(tmp_path / "second"), general=str(general), metric=None)
    assert again.forgetting is not None
    assert again.forgetting.difference.value == pytest.approx(
        facts["forgetting"]["difference"]["value"], abs=1e-6
    )


def test_no_section_of_the_recipe_replaces_a_check_of_another() -> None:
    """A recipe inherits from all its sections: of two checks of one name it would run only one."""
    sections = [
        kind for kind in Recipe.__mro__ if issubclass(kind, Section) and kind not in (Recipe, Section)
    ]
    checks = [name for kind in sections for name in vars(kind)["__pydantic_decorators__"].field_validators]
    assert len(set(checks)) == len(checks) > 10
