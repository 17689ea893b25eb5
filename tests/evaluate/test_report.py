"""The report of a run: what it says, that it opens offline, and that nothing in the data breaks it."""

import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import yaml

from tuition.errors import UserError
from tuition.evaluate.compare import Answer, compare
from tuition.evaluate.report import write_report
from tuition.evaluate.report.axes import Axis, axis_over
from tuition.evaluate.report.charts import smoothed, thinned
from tuition.evaluate.report.words import duration, moment, share, short, visible

ATTACK = "<img src=x onerror=alert(1)>"
VOID = {"meta", "br", "img", "link", "input"}


class Page(HTMLParser):
    """Checks that tags are balanced, and keeps tags, attributes and text."""

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.text = [], [], ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def write_run(folder, *, metrics=(), recipe=None, run=None, **files):
    """A run folder; `files` are rows of `name.jsonl`, or one object of `name.json`."""
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe or {"model": "./tiny", "seed": 7}))
    (folder / "run.json").write_text(json.dumps(run or {}))
    for name, value in {"metrics": list(metrics), **files}.items():
        if isinstance(value, list):
            (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in value))
        else:
            (folder / f"{name}.json").write_text(json.dumps(value))
    return folder


def report(folder):
    path = write_report(folder)
    assert path == folder / "report.html"
    return Page(path.read_text(encoding="utf-8"))


def words_of(page):
    return re.sub(r"\s+", " ", page.text)


def training(count, loss=lambda step: 2 - step / 100):
    return [
        {"step": step, "loss": loss(step), "learning_rate": 1e-4, "grad_norm": 0.5}
        for step in range(1, count + 1)
    ]


def comparison(wins=20, losses=1, both_wrong=4):
    answers = [Answer(f"{i}?", "yes", "no", "yes", f"h.jsonl:{i}") for i in range(wins)]
    answers += [Answer(f"lost? {i}", "yes", "yes", "no", "h.jsonl:90") for i in range(losses)]
    answers += [Answer(f"hard {i}?", "yes", "no", "no", "h.jsonl:91") for i in range(both_wrong)]
    held_out = {"rows": len(answers), "trained_on": 0, "caution": ""}
    return {"comparisons": [compare(answers, "exact_match").to_json()], "overlap": held_out}


def test_a_minimal_folder_gives_a_report(tmp_path):
    page = report(write_run(tmp_path, metrics=training(3)))
    assert "Training loss 1.99 → 1.97 in 3 steps" in page.text
    assert "whether the model is better is not known" in page.text
    assert f"tuition train {tmp_path}/recipe.yaml" in page.text
    assert [section["id"] for section in page.all("section")] == [
        "asked", "learning", "settings", "reproduce"
    ]  # fmt: skip


def test_a_run_that_was_not_compared_says_how_to_know(tmp_path):
    facts = {"status": "finished", "model": {"name": "base"}}
    text = report(write_run(tmp_path, metrics=training(3), run=facts)).text
    assert f"tuition evaluate {tmp_path} --data YOUR_TEST_FILE --baseline base" in text


def test_a_run_without_a_step_says_so(tmp_path):
    assert "No training step is recorded yet" in report(write_run(tmp_path)).text


def test_a_folder_that_holds_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="there is no run here"):
        write_report(tmp_path)


def test_the_verdict_comes_first_and_counts_the_questions(tmp_path):
    page = report(write_run(tmp_path, evaluation=comparison()))
    words = words_of(page)
    assert "Exact match 4.0 % → 80.0 % on 25 held-out questions better than the base model" in words
    assert "20 better than before, 1 worse, 0 right both times, 4 equal and not right." in words
    assert "Exact match: 1 answer became worse; see them under Answers." in words
    assert "25 held-out questions are few" in words


def test_rows_that_ask_the_same_are_as_few_as_their_prompts(tmp_path):
    answers = [Answer(f"{i % 10}?", "yes", "no", "yes" if i % 3 else "no", f"h.jsonl:{i}") for i in range(40)]
    evaluation = {"comparisons": [compare(answers, "exact_match").to_json()]}
    words = words_of(report(write_run(tmp_path, evaluation=evaluation)))
    assert "40 questions, 10 prompts in all, are few, the true interval is wider" in words


def test_questions_that_were_trained_on_are_not_called_held_out(tmp_path):
    caution = "20 of these 25 were trained on"
    evaluation = {**comparison(), "overlap": {"rows": 25, "trained_on": 20, "caution": caution}}
    words = words_of(report(write_run(tmp_path, evaluation=evaluation)))
    assert "on 25 questions better" in words and "held-out questions" not in words
    assert f"Before you ship {caution}." in words
    del evaluation["overlap"]
    unknown = words_of(report(write_run(tmp_path, evaluation=evaluation)))
    assert "on 25 questions better" in unknown and "held-out questions" not in unknown


def test_one_question_has_no_interval_and_decides_nothing(tmp_path):
    words = words_of(report(write_run(tmp_path, evaluation=comparison(wins=1, losses=0, both_wrong=0))))
    assert "on 1 held-out question not decided" in words
    assert "Paired difference +100.0 points, too few prompts for an interval" in words
    assert "(95 % interval" not in words and "the difference may be chance, so few were asked." in words


def test_held_out_loss_is_the_verdict_where_nothing_was_compared(tmp_path):
    page = report(
        write_run(tmp_path, metrics=[{"step": s, "eval_loss": v} for s, v in ((0, 3), (5, 1), (9, 2))])
    )
    assert "Held-out loss 3 → 1 at step 5" in page.text
    assert "lowest at step 5 (1) and rose to 2 by step 9" in page.text


def test_a_held_out_loss_that_never_fell_is_not_sold_as_progress(tmp_path):
    metrics = [{"step": step, "eval_loss": loss} for step, loss in ((0, 1), (5, 2))]
    assert "Held-out loss did not fall: 1 → 2" in report(write_run(tmp_path, metrics=metrics)).text


def test_an_interrupted_run_and_a_failed_proof_are_cautioned(tmp_path):
    run = {
        "status": "interrupted",
        "plan": {"steps": 500},
        "proof": [
            {"name": "Stop", "ok": True, "detail": "learned"},
            {"name": "Parity", "ok": False, "detail": "2 differ"},
        ],
    }
    page = report(write_run(tmp_path, metrics=training(120), run=run))
    assert "The run was interrupted: 120 steps of 500 recorded." in page.text
    assert "Proof failed: Parity (2 differ)." in page.text
    assert "1 of 2" in page.text


def test_wins_stand_before_losses_and_losses_before_the_rest(tmp_path):
    samples = [{"prompt": "third?", "expected": "a", "base": None, "tuned": "", "file": "s.jsonl", "line": 3}]
    page = report(write_run(tmp_path, evaluation=comparison(), samples=samples))
    places = [
        page.text.index(words)
        for words in (
            "Became better: 20",
            "Became worse: 1",
            "Other held-out prompts, before and after: 1",
            "third?",
        )
    ]
    assert places == sorted(places)
    assert "s.jsonl:3" in page.text
    assert "not generated" in page.text
    (tmp_path / "learned").mkdir()
    learned = write_run(tmp_path / "learned", run={"data": {"validation_examples": 0}}, samples=samples)
    assert "Prompts that were learned from, before and after: 1" in report(learned).text
    assert "empty" in page.text


def test_everything_from_data_is_shown_literally(tmp_path):
    row = dict.fromkeys(
        ("prompt", "expected", "base", "tuned", "file", "code", "message", "fix", "severity"), ATTACK
    )
    page = report(
        write_run(
            tmp_path,
            recipe={ATTACK: ATTACK, "list": [ATTACK]},
            run={
                "name": ATTACK,
                "command": ATTACK,
                "model": {"name": ATTACK},
                "hashes": {ATTACK: ATTACK},
                "versions": {ATTACK: ATTACK},
                "data": {"shapes": {ATTACK: ATTACK}},
                "proof": [{"name": ATTACK, "detail": ATTACK}],
            },
            samples=[row],
            findings=[row],
            ledger=[
                {"file": ATTACK, "line": 1, "fate": "rejected", "code": ATTACK, "reason": ATTACK},
                {"fate": ATTACK},
            ],
            example={"tokens": [{"text": ATTACK, "supervised": 1}], "file": ATTACK},
            evaluation={
                "comparisons": [{**comparison()["comparisons"][0], "metric": ATTACK, "verdict": ATTACK}]
            },
        )
    )
    assert page.all("img") == page.all("script") == []
    assert page.text.count(ATTACK) > 20
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]


def test_the_page_requests_nothing(tmp_path):
    run = {"command": "tuition train https://example.org/recipe.yaml"}
    page = report(write_run(tmp_path, metrics=training(50), run=run, evaluation=comparison()))
    html = (tmp_path / "report.html").read_text()
    assert not {"script", "link", "img", "iframe", "object", "use", "image"} & {tag for tag, _ in page.tags}
    assert all(link["href"].startswith("#") for link in page.all("a"))
    assert not [a for _, a in page.tags if "src" in a or "srcset" in a or "xlink:href" in a]
    assert "@import" not in html and "url(" not in html
    assert re.findall("https?://[^<]*", html) == ["https://example.org/recipe.yaml"], "text, not a resource"
    assert "default-src 'none'" in html


def test_links_lead_to_sections_that_are_there(tmp_path):
    page = report(write_run(tmp_path, metrics=training(50), evaluation=comparison()))
    assert [link["href"] for link in page.all("a")] == [
        f"#{section['id']}" for section in page.all("section")
    ]


def test_headings_descend_in_order_and_pictures_have_titles(tmp_path):
    page = report(write_run(tmp_path, metrics=training(50), evaluation=comparison()))
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    named = [svg["aria-labelledby"].split() for svg in page.all("svg") if svg.get("role") == "img"]
    assert named and all(name in ids for names in named for name in names)
    assert all("scope" in header for header in page.all("th"))


def test_numbers_that_are_none_break_nothing(tmp_path):
    nan = float("nan")
    metrics = [
        {"step": s, "loss": nan if s == 2 else 1.0, "grad_norm": None, "learning_rate": nan} for s in range(5)
    ]
    run = {
        "seconds": nan,
        "started": 12,
        "model": "text",
        "data": [],
        "plan": {"steps": None},
        "proof": "x",
        "result": {"best_step": float("inf"), "tokens_per_second": None},
        "hardware": {"memory_bytes": "much"},
    }
    broken = {"comparisons": [{"metric": "f1", "base": None}, "text", {}]}
    page = report(
        write_run(tmp_path, metrics=[*metrics, {"step": 0, "eval_loss": nan}], run=run, evaluation=broken)
    )
    assert "1 step had no finite loss." in page.text
    assert "nan" not in page.text.lower()


def test_torn_files_cost_a_sentence_each(tmp_path):
    write_run(tmp_path, metrics=training(4))
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 5, "lo')
    (tmp_path / "run.json").write_text("{")
    (tmp_path / "evaluation.json").write_text("[]")
    (tmp_path / "recipe.yaml").write_text("a: [")
    page = report(tmp_path)
    for words in ("1 line of metrics.jsonl", "run.json", "evaluation.json", "recipe.yaml"):
        assert f"{words} could not be read." in page.text
    assert "in 4 steps" in page.text


def test_what_cannot_be_seen_is_written_out(tmp_path):
    assert visible("a\x00b\u202ec\ud800") == "a⟨U+0000⟩b⟨U+202E⟩c⟨U+D800⟩"
    assert visible("tab\tline\nnon-joiner\u200c👩\u200d👧") == "tab\tline\nnon-joiner\u200c👩\u200d👧"
    write_run(tmp_path)
    (tmp_path / "samples.jsonl").write_bytes(b'{"prompt": "bytes \xff", "base": "\\ud800"}\n')
    page = report(tmp_path)
    assert "bytes ⟨byte FF⟩" in page.text
    assert "⟨U+D800⟩" in page.text


def test_a_long_answer_keeps_its_start_and_its_end(tmp_path):
    tuned = "start " + "x" * 5_000 + " end"
    page = report(
        write_run(tmp_path, samples=[{"prompt": "?", "expected": None, "base": "", "tuned": tuned}])
    )
    assert "start x" in page.text and "x end" in page.text
    assert "[… 4,110 characters left out …]" in page.text


def test_a_resumed_run_shows_each_step_once(tmp_path):
    page = report(write_run(tmp_path, metrics=[*training(6), *training(6, loss=lambda step: 1.0)[3:]]))
    assert "Training loss 1.99 → 1 in 6 steps" in page.text


def test_the_loss_curve_passes_through_the_recorded_points(tmp_path):
    metrics = [
        {"step": 5, "loss": 4},
        {"step": 10, "loss": 2},
        {"step": 0, "eval_loss": 3},
        {"step": 10, "eval_loss": 0},
    ]
    page = report(write_run(tmp_path, metrics=metrics, run={"result": {"best_step": 5}}))
    shapes = {
        shape["class"]: shape["d"] for shape in page.all("path") if shape["class"] in ("smooth", "held")
    }
    assert shapes == {"smooth": "M50.00 0.00 L100.00 50.00", "held": "M0.00 25.00 L100.00 100.00"}
    assert [dot["d"] for dot in page.all("path") if dot["class"] == "dot"][1:] == [
        "M0.0 25.0h0",
        "M100.0 100.0h0",
    ]
    assert "Lowest held-out loss 0 at step 10." in page.text
    assert "best: step 5" in page.text


def test_a_loss_over_decades_gets_a_logarithmic_axis(tmp_path):
    page = report(write_run(tmp_path, metrics=training(100, loss=lambda step: 10 * 0.9**step)))
    assert "Loss by step (logarithmic scale)" in page.text
    assert "geometric mean over 2 steps" in page.text


def test_five_thousand_steps_stay_a_small_page(tmp_path):
    write_run(tmp_path, metrics=training(5_000, loss=lambda step: 9.0 if step == 2_345 else 1 + step % 2))
    assert write_report(tmp_path).stat().st_size < 150_000


def test_thinning_loses_no_spike():
    line = [(float(step), 9.0 if step == 2_345 else 1.0) for step in range(5_000)]
    kept = thinned(line)
    assert len(kept) <= 800
    assert (2_345.0, 9.0) in kept
    assert kept == sorted(kept)


def test_smoothing_is_centred_and_keeps_a_straight_line():
    line = [(float(step), 2.0 * step) for step in range(11)]
    means = smoothed(line, 4, Axis(0, 20))
    assert means[2:-2] == line[2:-2]
    assert means[0] == (0.0, 2.0), "of the first three points, not pulled towards zero"


def test_axes_have_round_ticks_around_the_values():
    assert axis_over([0.31, 3.9]) == Axis(0, 4)
    assert axis_over([0.31, 3.9]).ticks() == [0, 1, 2, 3, 4]
    assert axis_over([2.0, 2.0]) == Axis(1, 3)
    assert axis_over([0.0]) == Axis(-1, 1)
    assert Axis(0.02, 11, log=True).ticks() == pytest.approx([0.1, 1, 10])
    assert Axis(0.3, 3, log=True).ticks() == pytest.approx([0.5, 1, 2])
    assert Axis(1, 100, log=True).place(10) == pytest.approx(50)


def test_the_histogram_shows_its_counts_and_the_limit(tmp_path):
    histogram = {"edges": [0, 100, 200, 400], "counts": [10, 40, 20]}
    page = report(
        write_run(tmp_path, recipe={"max_length": 300}, run={"data": {"length_histogram": histogram}})
    )
    assert [float(bar["height"]) for bar in page.all("rect")] == [25, 100, 50]
    assert "200 to 400 tokens: 20" in page.text
    assert "70 examples, 0 to 400 tokens long." in page.text
    assert "max_length 300" in page.text
    assert "left:83.33%" in (tmp_path / "report.html").read_text()


def test_the_ledger_is_summed_by_fate_and_reason(tmp_path):
    kept = {"file": "a.jsonl", "line": 1, "fate": "kept", "code": None, "reason": None}
    refused = {**kept, "fate": "rejected", "code": "D004", "reason": "there is no assistant turn"}
    ledger = [kept] * 1_170 + [{**refused, "line": line} for line in range(5, 35)]
    page = report(write_run(tmp_path, ledger=ledger, run={"data": {"rows_in": 1_201}}))
    words = words_of(page)
    assert "kept: 1,170. rejected: 30." in words
    assert "D004rejectedthere is no assistant turn30" in words
    assert "The first 20 of 30 rejected rows" in words
    assert "a.jsonl:24" in words and "a.jsonl:25" not in words
    assert "The ledger accounts for 1,200 of 1,201 rows." in words
    assert "30 of 1,200 rows were rejected" in words
    assert [bar["width"] for bar in page.all("rect") if bar.get("height") == "10" and "x" in bar] == [
        "97.5",
        "2.5",
    ]


def test_findings_are_counted_by_code_with_the_gravest_first(tmp_path):
    finding = {
        "code": "D031",
        "severity": "warning",
        "file": "a.jsonl",
        "line": 3,
        "message": "Odd.",
        "fix": "Look.",
    }
    error = {**finding, "code": "D004", "severity": "error", "message": "No answer."}
    words = words_of(report(write_run(tmp_path, findings=[finding, finding, error])))
    assert words.index("No answer. Look. (a.jsonl:3)") < words.index("Odd. Look. (a.jsonl:3)2")


def test_learned_tokens_are_marked_and_whitespace_is_visible(tmp_path):
    tokens = [("Hi", 0), (" a\n", 0), ("\tb", 0.5), ("<|im_end|>", True)]
    example = {
        "tokens": [{"text": text, "supervised": weight} for text, weight in tokens],
        "file": "a.jsonl",
        "line": 2,
    }
    page = report(write_run(tmp_path, example=example))
    assert "Hi·a↵\n⇥b<|im_end|>" in page.text
    assert page.all("mark") == [{"title": "weight 0.5"}, {}]
    assert "2 of 4 tokens are learned" in page.text
    assert "The last of them is <|im_end|>." in page.text


def test_a_long_example_keeps_its_start_and_its_stop_token(tmp_path):
    tokens = [{"text": f"t{index} ", "supervised": index > 500} for index in range(2_000)]
    page = report(write_run(tmp_path, example={"tokens": tokens}))
    assert "t0·" in page.text and "t1999·" in page.text and "t1000·" not in page.text
    assert "1,200 tokens left out" in page.text


def test_settings_versions_and_the_command_are_there(tmp_path):
    run = {
        "command": "tuition train recipe.yaml --set seed=7",
        "versions": {"python": "3.11.7", "torch": "2.11.0+cpu"},
        "hashes": {"data": "ab12"},
    }
    page = report(
        write_run(tmp_path, recipe={"learning_rate": 2e-5, "data": ["a", "b"], "report_to": []}, run=run)
    )
    assert "tuition train recipe.yaml --set seed=7" in page.text
    assert "pip install torch==2.11.0" in page.text and "torch==2.11.0+cpu" not in page.text
    for words in ("2e-05", "a, b", "none", "ab12", "3.11.7"):
        assert words in page.text


def test_a_recipe_whose_aliases_never_end_costs_its_own_section(tmp_path):
    write_run(tmp_path)
    (tmp_path / "recipe.yaml").write_text("a: &a [*a]\nb: 5\n")
    assert "recipe.yaml could not be read" in report(tmp_path).text


def test_numbers_in_words():
    assert [short(n) for n in (0, 1.23456, 12_345, 1_235_000_000, 0.00002, None)] == [
        "0",
        "1.235",
        "12,345",
        "1.24B",
        "2e-5",
        "–",
    ]
    assert [share(n) for n in (0, 0.0001, 0.982, 0.99999, 1)] == [
        "0\xa0%",
        "< 0.1\xa0%",
        "98.2\xa0%",
        "> 99.9\xa0%",
        "100\xa0%",
    ]
    assert [duration(s) for s in (0.5, 41, 130, 8_040)] == ["0.5 s", "41 s", "2 min", "2 h 14 min"]
    assert moment("2026-03-02T14:04:51.12+00:00") == "2026-03-02 14:04 UTC"
    assert moment("yesterday") == "yesterday"


def test_conditions_and_what_was_forgotten_stand_in_the_report(tmp_path):
    gate = [
        {"condition": "loss<=1.2", "met": True, "value": 1.1, "low": 1.0, "high": 1.3, "relative": False},
        {
            "condition": "f1>=baseline",
            "met": False,
            "value": -0.01,
            "low": -0.1,
            "high": 0.08,
            "relative": True,
        },
    ]
    forgetting = {
        "base": {"bits_per_byte": 0.5}, "tuned": {"bits_per_byte": 0.75}, "advice": "Write replay: into it.",
        "difference": {"value": 0.25, "low": 0.125, "high": 0.375, "count": 40}, "most": 0.05, "exceeded": True,
    }  # fmt: skip
    page = report(write_run(tmp_path, evaluation={"gate": gate, "forgetting": forgetting}))
    words = words_of(page)
    assert "loss<=1.2 1.1 1 to 1.3 met" in words
    assert "f1>=baseline -0.01 over the base -0.1 to 0.08 not met" in words
    said = (
        "General text costs 0.5 → 0.75 bits a byte, +0.25 (95 % interval +0.125 to +0.375): "
        "more was forgotten than may be. Write replay: into it."
    )
    assert words.count(said) == 2, "above as a caution, and in its own place"
    assert "1 condition not met" in words and "Condition not met: f1>=baseline." in words
    assert "Forgotten, bits a byte+0.25at most 0.05 may be" in words
    assert "speaks against shipping" not in words


def test_where_nothing_speaks_against_shipping_the_page_says_what_was_looked_at(tmp_path):
    forgetting = {
        "base": {"bits_per_byte": 2.5}, "tuned": {"bits_per_byte": 2.4}, "advice": None, "most": 0.05,
        "difference": {"value": -0.1, "low": -0.2, "high": -0.05, "count": 40}, "exceeded": False,
    }  # fmt: skip
    run = {"status": "finished", "proof": [{"name": "stop", "ok": True}]}
    evaluation = comparison(wins=40, losses=0, both_wrong=2) | {"forgetting": forgetting}
    words = words_of(report(write_run(tmp_path, run=run, evaluation=evaluation)))
    assert "Nothing in the files of this run speaks against shipping: the difference is decided" in words
    assert "1 proof holds, nothing was forgotten beyond what may be." in words
    assert "−0.1 (95 % interval −0.2 to −0.05): nothing was forgotten." in words


def test_what_was_asked_names_the_task_and_the_settings_that_somebody_chose(tmp_path):
    recipe = {
        "model": "org/m",
        "data": ["/home/me/work/rows.jsonl"],
        "method": "lora",
        "lora_r": 8,
        "max_length": 512,
    }
    run = {"model": {"name": "org/m", "parameters": 1.2e9}, "data": {"train_examples": 90},
           "plan": {"steps": 12, "epochs": 2.0, "batch_size": 16}}  # fmt: skip
    words = words_of(report(write_run(tmp_path, recipe=recipe, run=run, evaluation=comparison())))
    assert (
        "Train org/m (1.2B parameters) with a LoRA adapter on 90 examples of work/rows.jsonl for 2 epochs, "
        "12 updates of 16 examples. Judged by exact match against the base model."
    ) in words
    chosen = words.split("Not at their defaults:")[1].split("Before and after")[0]
    assert "lora_r: 8" in chosen and "max_length" not in chosen, "auto was nobody's choice"


def test_a_loss_that_is_not_minus_log_p_is_never_shown_without_its_name(tmp_path):
    metrics = [{"step": step, "loss": 0.1 + step / 100} for step in (1, 2, 3)]
    recipe = {"model": "org/m", "token_loss": "dft", "label_smoothing": 0.1}
    page = report(write_run(tmp_path, recipe=recipe, metrics=metrics))
    assert "Training loss (dft and smoothed) 0.11 → 0.13 in 3 steps" in page.text
    assert "training (dft and smoothed)" in page.text


def test_a_value_that_somebody_gave_where_auto_is_usual_is_named_as_chosen(tmp_path):
    recipe = {"model": "org/m", "data": ["rows.jsonl"], "learning_rate": 0.003, "max_length": 512}
    words = words_of(report(write_run(tmp_path, recipe=recipe, run={"found_settings": ["max_length"]})))
    assert "Not at their defaults: learning_rate: 0.003." in words


def test_losses_of_base_and_tuned_stand_side_by_side_with_their_paired_difference(tmp_path):
    def held_out(loss):
        interval = {"value": loss, "low": loss - 0.1, "high": loss + 0.1, "count": 40}
        return {
            "loss": loss,
            "bits_per_byte": loss / 2,
            "token_accuracy": 0.5,
            "intervals": {"loss": interval},
        }

    difference = {"loss": {"value": -1.0, "low": -1.2, "high": -0.8, "count": 40}}
    evaluation = {"base_held_out": held_out(3.0), "held_out": held_out(2.0), "differences": difference}
    words = words_of(report(write_run(tmp_path, evaluation=evaluation)))
    assert "Loss, nats a token 3 2.9 to 3.1 2 1.9 to 2.1 −1 −1.2 to −0.8 better" in words
    assert "Bits a byte 1.5 1" in words and "Token accuracy 50.0 %" in words


def test_a_judge_and_the_demonstrations_are_told_in_a_sentence_each(tmp_path):
    judge = {"model": "wise", "score": {"value": 0.75, "low": 0.6, "high": 0.9, "count": 40}, "wins": 30,
             "losses": 10, "ties": 0, "verdict": "better"}  # fmt: skip
    rows = {"rows": 60, "not_learned": 2, "suspicious": 1}
    evaluation = comparison() | {"judge": judge, "demonstrations": rows}
    words = words_of(report(write_run(tmp_path, evaluation=evaluation)))
    assert (
        "wise as judge, each pair in both orders: the tuned model wins 75.0 % (60.0 % to 90.0 %) of 40 prompts"
        in words
    )
    assert "Of 60 demonstrations 2 are not learned and 1 look wrong" in words


def test_metrics_of_answers_that_were_measured_while_it_learned_are_drawn(tmp_path):
    metrics = [{"step": step, "eval_loss": 1.0, "eval_exact_match": step / 10} for step in range(4)]
    page = report(write_run(tmp_path, metrics=metrics))
    assert "Held out: exact match" in page.text


def test_an_own_metric_is_shown_on_its_own_scale(tmp_path):
    score = {"value": 7.5, "low": 7.0, "high": 8.0, "count": 40}
    row = {
        "metric": "python:mine.py:grade",
        "base": score,
        "tuned": score,
        "difference": score,
        "verdict": "better",
    }
    words = words_of(report(write_run(tmp_path, evaluation={"comparisons": [row]})))
    assert "7.5 7 to 8" in words
    assert "750" not in words.split("Before and after")[1].split("Answers")[0]
