"""Every setting of a run: typed, frozen, checked once at the door.

A setting's sentence stands under its field, and help, schema and docs are made from it. Rooms receive
values or a section, never the whole recipe. Nothing here reads data or imports torch.
"""

from tuition.recipe.elsewhere import ALIASES, AS_HERE, NO_SETTING, said_here
from tuition.recipe.reading import (
    Recipe,
    load_recipe,
    make_recipe,
    read_settings,
    section_titles,
)
from tuition.recipe.running import JudgingSettings, RunSettings
from tuition.recipe.sections import (
    AdapterSettings,
    BatchSettings,
    DataSettings,
    LearnedSettings,
    ModelSettings,
    OptimizerSettings,
    RenderSettings,
)
from tuition.recipe.values import Section
from tuition.recipe.yamltext import parse_yaml

__all__ = [
    "ALIASES",
    "AS_HERE",
    "NO_SETTING",
    "AdapterSettings",
    "BatchSettings",
    "DataSettings",
    "JudgingSettings",
    "LearnedSettings",
    "ModelSettings",
    "OptimizerSettings",
    "Recipe",
    "RenderSettings",
    "RunSettings",
    "Section",
    "load_recipe",
    "make_recipe",
    "parse_yaml",
    "read_settings",
    "said_here",
    "section_titles",
]
