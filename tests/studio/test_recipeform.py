"""The form of a recipe: every setting is in it, and what it says is what the command types."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tuition import api
from tuition.errors import UserError
from tuition.recipe import Recipe
from tuition.studio import recipeform

SCHEMA = api.schema()
RECIPE = {"model": "starter", "data": ["a.jsonl", "b.jsonl"], "epochs": 2, "learning_rate": 3e-4, "method": "lora", "lora_r": 4,
          "mapping": {"prompt": "question"}, "span_markers": ["<a>", "</a>"], "learn_reasoning": False, "revision": "1e3",
          "allow_unproved": ["disk"], "output_dir": "outputs/x"}  # fmt: skip


def test_every_setting_has_a_control_with_its_sentence() -> None:
    controls = [c for group in recipeform.groups(SCHEMA, {}) for c in group.controls]
    assert {c.name for c in controls} | {"output_dir"} == set(Recipe.model_fields)
    assert all(c.description for c in controls)
    assert len(controls) == len({c.name for c in controls})


def test_a_form_that_is_filled_from_settings_means_those_settings() -> None:
    checked = recipeform.checked(RECIPE)
    again = recipeform.settings_of(SCHEMA, recipeform.filled_of(checked))
    assert recipeform.checked({**again, "output_dir": "outputs/x"}) == checked


def test_the_recipe_as_text_means_the_same_settings() -> None:
    checked = recipeform.checked(RECIPE)
    assert recipeform.checked(recipeform.read_yaml(recipeform.as_yaml(checked))) == checked


def test_the_command_trains_with_the_very_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from tuition.cli import app

    checked, seen = recipeform.checked(RECIPE), {}

    def dry_run(recipe: Any, *, watcher: Any, **given: Any) -> Any:
        seen.update(given)
        raise UserError("seen", next_step="Nothing")

    monkeypatch.setattr("tuition.api.dry_run", dry_run)
    CliRunner().invoke(app, [*recipeform.arguments(checked), "--dry-run"])
    assert recipeform.checked(seen) == checked


@settings(max_examples=150)
@given(
    st.dictionaries(
        st.sampled_from([*Recipe.model_fields, "nonsense", "name"]),
        st.text(max_size=20)
        | st.sampled_from(["auto", "none", "1", "0.5", "true", "[a, b]", "{a: b}", "&x *x", "1e999", "-"]),
    )
)
def test_whatever_a_form_is_filled_with_gives_settings_or_a_sentence(form: dict[str, str]) -> None:
    filled = recipeform.read_form(SCHEMA, form)
    assert recipeform.groups(SCHEMA, filled)
    try:
        checked = recipeform.checked(recipeform.settings_of(SCHEMA, filled))
    except UserError as error:
        assert str(error)
    else:
        assert recipeform.checked(recipeform.read_yaml(recipeform.as_yaml(checked))) == checked
