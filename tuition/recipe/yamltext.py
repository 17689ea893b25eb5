"""YAML as plain data: no tags, no aliases, no key twice, bounded in size and depth."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tuition.errors import one_line

LARGEST_BYTES = 100 << 10
_DEEPEST = 16  # levels
_MANY_BRACKETS = re.compile(r"(?:[\[{]\s*){64}")


class _PlainLoader(yaml.SafeLoader):
    """YAML of a settings file: a few levels deep, without tags that build objects, without aliases,
    which can grow without bound, and without a key said twice, of which one would be lost."""

    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not allowed")
        self.depth += 1
        if self.depth > _DEEPEST:
            raise yaml.YAMLError("it is nested too deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen = set()
        for key, _ in node.value:
            if key.value in seen and isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"'{key.value}' is set twice, again in line {key.start_mark.line + 1}")
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """A YAML value.

    Raises:
        yaml.YAMLError: it is none, or has tags, aliases, or a key twice.
    """
    if _MANY_BRACKETS.search(text):  # the scanner's time grows with their square before a level is counted
        raise yaml.YAMLError("it is nested too deep")
    try:
        return yaml.load(text, Loader=_PlainLoader)
    # dates that do not exist, numbers of thousands of digits, tags on what they do not fit
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise yaml.YAMLError(f"{type(error).__name__}: {one_line(error, 120)}") from None
