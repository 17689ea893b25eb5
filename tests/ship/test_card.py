"""The model card says what the run knows, and has no form to fill in."""

from __future__ import annotations

import json
from pathlib import Path

import tuition
from tests.conftest import make_model
from tuition.recipe import make_recipe
from tuition.ship.card import _licences, licence_of


def test_a_card_holds_recipe_ledger_figures_and_what_was_checked(
    full_run: tuition.Run, tmp_path: Path
) -> None:
    score = {"value": 0.5, "low": 0.25, "high": 0.75, "count": 8}
    comparison = {
        "metric": "exact_match",
        "base": score,
        "tuned": score,
        "difference": score,
        "verdict": "better",
    }
    evaluation = full_run.path / "evaluation.json"
    evaluation.write_text(json.dumps({"comparisons": [comparison]}))
    try:
        card = (full_run.export(tmp_path / "helper") / "README.md").read_text()
    finally:
        evaluation.unlink()
    facts = json.loads((full_run.path / "run.json").read_text())
    assert card.startswith("---\nlibrary_name: transformers\n")
    assert "# helper" in card
    assert f"60 rows were read, {facts['data']['kept']} kept" in card
    assert "`data.jsonl`" in card
    assert str(full_run.path.parent) not in card, "paths of somebody's disk stay there"
    assert "| `batch_size` | 8 |" in card
    assert f"| epochs | {facts['plan']['epochs']:.3g}, in 12 updates |" in card, (
        "not those of a recipe that stops before"
    )
    assert f"| tokens gone through | {facts['result']['tokens']:,}, of them learned " in card
    assert "| exact_match on 8 prompts | 0.500 [0.250, 0.750]" in card
    assert "Nothing else was measured" in card
    assert "An answer ends with `<|end|>`." in card
    assert "The base model's card states no licence. `data.jsonl` has no card. Ask" in card
    assert "greedy answers the same" in card
    assert "more information needed" not in card.lower()
    assert 'AutoModelForCausalLM.from_pretrained("helper")' in card


def test_whoever_knows_all_licences_is_not_sent_to_ask(tmp_path: Path) -> None:
    data = tmp_path / "piano pieces"
    data.mkdir()
    (data / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    recipe = make_recipe({"model": "m", "data": str(data)})
    assert _licences(recipe, "mit").endswith("The card of `piano pieces` states `cc0-1.0`.")
    assert _licences(recipe, None).endswith("before you pass this model on.")


def test_the_licence_is_the_one_that_the_base_s_card_states(tmp_path: Path) -> None:
    base = make_model(tmp_path / "base")
    assert licence_of(str(base)) is None
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Base\n")
    assert licence_of(str(base)) == "apache-2.0"
    (base / "README.md").write_text("---\nlicense: [\n---\n")
    assert licence_of(str(base)) is None
