"""What was asked of the run: model, method, data, the settings that somebody chose, and how it is judged."""

from __future__ import annotations

from tuition.counting import counted
from tuition.evaluate.report.comparison import METRIC_NAMES
from tuition.evaluate.report.facts import Row, Run, inside, listed, mappings, number
from tuition.evaluate.report.machine import setting
from tuition.evaluate.report.words import large, plain, short, short_path
from tuition.recipe import Recipe

_SAID_ELSEWHERE = frozenset(
    {"model", "data", "method", "output_dir", "epochs", "batch_size", "template_date"}
)
METHODS = {
    "full": "in all its weights",
    "lora": "with a LoRA adapter",
    "qlora": "with a LoRA adapter over a base in 4 bits",
    "new_tokens": "in the rows of new tokens alone",
}


def asked(run: Run) -> Row:
    """The sentence of the task, the settings that are not the usual ones, and what the run is judged by."""
    return {"task": task(run), "chosen": chosen(run), "judged": judged(run)}


def task(run: Run) -> str:
    """Model, method, data and length in one sentence, as far as the folder knows them."""
    model = inside(run.facts, "model", "name") or run.recipe.get("model")
    parameters = number(run.facts, "model", "parameters")
    of = f" ({large(parameters)} parameters)" if parameters else ""
    method = METHODS.get(str(run.recipe.get("method")), "")
    sources = ", ".join(short_path(str(source)) for source in listed(run.recipe.get("data")))
    examples, steps = number(run.facts, "data", "train_examples"), number(run.facts, "plan", "steps")
    epochs, batch = number(run.facts, "plan", "epochs"), number(run.facts, "plan", "batch_size")
    parts = [
        f"Train {model}{of} {method}".rstrip() if model else "",
        f"on {counted(int(examples), 'example')} of {sources}" if examples and sources else "",
        f"for {short(epochs)} epoch{'' if epochs == 1 else 's'}, {counted(int(steps), 'update')} of {counted(int(batch), 'example')}"
        if steps and epochs and batch
        else "",
    ]
    sentence = " ".join(part for part in parts if part)
    return f"{sentence}." if sentence else ""


def chosen(run: Run) -> list[tuple[str, str]]:
    """Settings that are not what tuition would have taken; `auto` was no choice of anybody's."""
    unknown = [key for key, field in Recipe.model_fields.items() if field.get_default() == "auto"]
    left_open = listed(run.facts.get("found_settings", unknown))
    chosen = []
    for key, field in Recipe.model_fields.items():
        value, default = run.recipe.get(key), field.get_default()
        usual = list(default) if isinstance(default, tuple) else default
        if key in run.recipe and key not in {*_SAID_ELSEWHERE, *left_open} and value != usual:
            chosen.append((key, setting(value)))
    return chosen


def judged(run: Run) -> str:
    """What decides: metrics on held-out prompts, and conditions."""
    names = [METRIC_NAMES.get(name, name) for row in run.comparisons if (name := str(row.get("metric")))]
    conditions = [str(row.get("condition")) for row in mappings(run.evaluation.get("gate"))]
    parts = [f"by {plain(names)} against the base model" if names else ""]
    parts += [
        f"under the condition{'s' if len(conditions) > 1 else ''} {plain(conditions)}" if conditions else ""
    ]
    said = " ".join(part for part in parts if part)
    return f"Judged {said}." if said else ""
