"""Tiny models of every family, made once for the tests of this room."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import make_model, make_tokenizer
from tests.train.families import FAMILIES


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Family → the folder of its model; nobody writes there."""
    root = tmp_path_factory.mktemp("families")
    tokenizer = make_tokenizer()
    return {family: make_model(root / family, family=family, tokenizer=tokenizer) for family in FAMILIES}
