"""A template that writes today's date is told one day for a whole run, and the user is told which."""

from __future__ import annotations

import datetime
import json
import signal
from pathlib import Path
from typing import Any

import pytest

import tuition
from tests.conftest import CHAT, make_model, make_tokenizer
from tuition.conversation import Conversation, Message
from tuition.errors import Interrupted, Origin
from tuition.evaluate.load import load_answerer
from tuition.recipe import RenderSettings, load_recipe
from tuition.render import Renderer, choose_template, date_notice, on_day, template
from tuition.render.evidence import Witness
from tuition.render.template import ChatTemplate
from tuition.screen import Opening, Watcher

DATED = (
    "<|system|>\nToday is {% if strftime_now is defined %}{{ strftime_now('%d %B %Y') }}{% else %}unknown{% endif %}."
    "<|end|>\n" + CHAT
)
DAY = datetime.date(2020, 2, 29)
ASK = [{"role": "user", "content": "a"}]


def test_a_template_that_reads_the_date_is_known_by_the_name_it_asks_for() -> None:
    assert ChatTemplate(DATED, {}, "").asks_date
    assert not ChatTemplate(CHAT + "strftime_now", {}, "").asks_date
    assert not ChatTemplate("{% set strftime_now = 1 %}{{ strftime_now }}", {}, "").asks_date


def test_the_templates_of_llama_3_2_and_gpt_oss_ask_for_the_date() -> None:
    folder = Path(pytest.importorskip("trl").__file__).parent / "chat_templates"
    asking = {
        p.stem
        for p in folder.glob("*.jinja")
        if ChatTemplate(p.read_text(encoding="utf-8"), {}, "").asks_date
    }
    assert {"llama3_2", "gptoss", "muse_glimmer"} <= asking
    assert not {"llama3", "qwen3", "gemma3"} & asking


def test_a_pinned_date_is_what_the_template_writes() -> None:
    dated = on_day(ChatTemplate(DATED, {}, ""), "2020-02-29")
    assert dated is not None
    assert "Today is 29 February 2020." in dated.text(ASK, (), add_generation_prompt=True)


def test_without_a_named_day_it_is_today() -> None:
    before = datetime.date.today()
    dated = on_day(ChatTemplate(DATED, {}, ""), "auto")
    assert dated is not None
    assert dated.date in (before, datetime.date.today())


def test_a_template_without_a_date_is_told_none_and_nothing_is_said() -> None:
    dated = ChatTemplate(CHAT, {}, "")
    assert on_day(dated, "2020-02-29") is dated
    assert date_notice(dated) is None


def test_transformers_writes_the_same_day_only_while_it_is_asked_to() -> None:
    tokenizer = make_tokenizer(template=DATED)
    dated = ChatTemplate(DATED, {}, "", DAY)
    with dated.served():
        served = tokenizer.apply_chat_template(ASK, tokenize=False, add_generation_prompt=True)
    assert served == dated.text(ASK, (), add_generation_prompt=True)
    assert "2020" not in tokenizer.apply_chat_template(ASK, tokenize=False)


def test_parity_holds_for_a_run_of_another_day() -> None:
    tokenizer = make_tokenizer(template=DATED)
    dated = on_day(choose_template("auto", tokenizer), "2020-02-29")
    renderer = Renderer(tokenizer, dated, train_on="assistant", max_length=200, too_long="drop")
    turns = (Message("user", "a"), Message("assistant", "b"))
    (outcome,) = renderer.render([Conversation(turns, Origin("rows.jsonl", 1))])
    witness = Witness(renderer)
    witness.see(outcome)
    seen = witness.finish()
    assert (seen.prompts, seen.unlike_serving) == (1, None)


def test_the_recipe_takes_a_day_and_nothing_else() -> None:
    assert RenderSettings(template_date="2020-02-29").template_date == "2020-02-29"
    assert RenderSettings(template_date=DAY).template_date == "2020-02-29"  # type: ignore[arg-type]
    for wrong in ("2020-02-30", "yesterday", "29.2.2020"):
        with pytest.raises(ValueError, match="template_date"):
            RenderSettings(template_date=wrong)


def test_a_run_names_its_day_and_keeps_it_when_resumed_on_another(
    tmp_path: Path, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings["model"] = str(make_model(tmp_path / "dated", tokenizer=make_tokenizer(template=DATED)))
    settings |= {"max_steps": 4, "save_every_steps": 1, "samples": 0}
    monkeypatch.setattr(template, "today", lambda: DAY)
    watcher = StopAfter(2)
    with pytest.raises(Interrupted):
        tuition.train(**settings, watcher=watcher)
    folder = Path(settings["output_dir"])
    assert load_recipe(folder / "recipe.yaml").template_date == "2020-02-29"
    found = [
        json.loads(line) for line in (folder / "findings.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert [f["code"] for f in found].count("R028") == 1
    assert any("2020-02-29" in warning for warning in watcher.warnings)
    monkeypatch.setattr(template, "today", lambda: datetime.date(2020, 3, 1))
    run = tuition.train(folder, resume=True)
    assert json.loads((run.path / "run.json").read_text(encoding="utf-8"))["status"] == "finished"
    answerer = load_answerer(str(folder), device="cpu")
    prompt = answerer.renderer.prompt_ids([Message("user", "a")])
    assert "29 February 2020" in answerer.tokenizer.decode(prompt)


class StopAfter(Watcher):
    """Presses Ctrl-C after a step, and keeps the warnings of the opening screen."""

    def __init__(self, step: int) -> None:
        self.at = step
        self.warnings: list[str] = []

    def opening(self, opening: Opening) -> None:
        self.warnings = opening.warnings

    def step(self, report: Any) -> None:
        if report.step == self.at:
            signal.raise_signal(signal.SIGINT)
