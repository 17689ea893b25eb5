"""What is learned from, read before a weight is loaded: configuration, tokenizer, template, rows and examples."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuition.batch.corpus import Corpus, prepare_corpus, sources_of
from tuition.batch.stream import stream_corpus
from tuition.data.sources import Sources
from tuition.recipe import DataSettings, ModelSettings, Recipe, RenderSettings
from tuition.render import Renderer, adopt_template, choose_template, load_tokenizer, on_day
from tuition.render.modelfiles import longest_example
from tuition.render.template import ChatTemplate
from tuition.screen import Watcher


@dataclass(frozen=True, kw_only=True)
class Material:
    """What is learned from, known before a weight is loaded.

    Attributes:
        recipe: with the settings resolved that reading needs.
        config: the model's, as transformers reads it.
        new_tokens: ids of control tokens that the template brings and the tokenizer did not have.
    """

    recipe: Recipe
    sources: Sources
    config: Any
    tokenizer: Any
    template: ChatTemplate | None
    new_tokens: list[int]
    renderer: Renderer
    corpus: Corpus


def read_material(recipe: Recipe, watcher: Watcher, *, leads: bool = True) -> Material:
    """Tokenizer, template and every row of data: what is learned is known before a weight is loaded.

    Args:
        leads: this rank prepares the data; the others find it prepared.
    """
    from tuition.train.libraries import import_large_ones

    sources = sources_of(recipe.section(DataSettings))
    import_large_ones()  # for seconds, so data that is not there is said before
    from tuition.train.model import context_length, load_config, quiet_transformers

    quiet_transformers()
    config = load_config(recipe.model, recipe.revision, trusted=recipe.trust_remote_code)
    tokenizer, template, new_tokens = read_tokenizer(recipe)
    if template is not None and template.date is not None:
        recipe = recipe.replace(template_date=template.date.isoformat())
    positions = context_length(config)
    recipe = recipe.replace(max_length=longest_example(recipe.max_length, positions))
    watcher.stage("reading and rendering the data")
    settings = recipe.section(RenderSettings)
    renderer = Renderer.from_settings(
        tokenizer, template, settings, max_length=int(settings.max_length), positions=positions
    )
    corpus = _corpus(recipe, sources, renderer, watcher, leads)
    return Material(
        recipe=recipe,
        sources=sources,
        config=config,
        tokenizer=tokenizer,
        template=template,
        new_tokens=new_tokens,
        renderer=renderer,
        corpus=corpus,
    )


def read_tokenizer(recipe: Recipe) -> tuple[Any, ChatTemplate | None, list[int]]:
    """The tokenizer, whose template is now the chosen one; that; and the ids of the tokens that it brought.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    tokenizer = load_tokenizer(recipe.model, recipe.revision, trusted=recipe.trust_remote_code)
    template = on_day(
        choose_template(recipe.chat_template, tokenizer, recipe.chat_template_kwargs), recipe.template_date
    )
    return tokenizer, template, adopt_template(tokenizer, template)


def _corpus(recipe: Recipe, sources: Sources, renderer: Renderer, watcher: Watcher, leads: bool) -> Corpus:
    """All examples: prepared now or before, or file by file where the data streams."""
    data, render = recipe.section(DataSettings), recipe.section(RenderSettings)
    if not data.stream:
        return prepare_corpus(
            sources, renderer, data=data, render=render, seed=recipe.seed, tell=watcher.stage
        )
    return stream_corpus(
        sources,
        renderer,
        model=recipe.section(ModelSettings),
        data=data,
        render=render,
        seed=recipe.seed,
        leads=leads,
        tell=watcher.stage,
    )
