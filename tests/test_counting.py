"""A number and what it counts agree."""

from __future__ import annotations

import pytest

from tests.render.helpers import ORIGIN
from tuition.counting import counted
from tuition.data.jsontext import row_from_bytes
from tuition.errors import UserError
from tuition.fewshot import expand


@pytest.mark.parametrize(
    ("count", "said"), [(0, "0 pairs wait"), (1, "1 pair waits"), (2_000, "2,000 pairs wait")]
)
def test_one_is_said_in_the_singular_and_every_other_number_in_the_plural(count: int, said: str) -> None:
    assert counted(count, "pair waits", "pairs wait") == said


def test_complaints_about_one_thing_are_in_the_singular() -> None:
    found = row_from_bytes(b"\0{}", ORIGIN.file, 1).finding
    assert found is not None and found.message == "1 of 3 bytes are NUL"
    with pytest.raises(UserError, match="1 pair with different questions gives no prompt with 1 example"):
        expand([("a", "b")], "", shots=1, count=1, seed=0)
