"""Replay: general rows beside the training rows, as many as make a share of all that is learned.

InstructGPT mixed pretraining data in so that old skills are kept (arXiv 2203.02155); here a share of general
demonstrations does. Rows are chosen by a hash of content and seed: the order of the file plays no part, and a
larger share keeps what a smaller one chose. No row is replayed whose prompt the validation split would hold out.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

from tuition.conversation import Conversation
from tuition.counting import counted
from tuition.data.catalogue import finding
from tuition.data.ledger import Ledger
from tuition.data.reading import Reading
from tuition.data.sources import split_share
from tuition.data.splits import side_of
from tuition.errors import Origin, UserError

_NEVER = 2**64 - 1


class Replay:
    """The chosen rows of general data. Reads its files twice: to choose, and to give.

    Memory grows by 8 bytes for each row of the files, and by what `Reading` and the ledger take.

    Attributes:
        wanted: how many examples make the share.
        shapes: source → the shape found in it, after `conversations`.
    """

    def __init__(
        self,
        sources: Sequence[str],
        *,
        share: float,
        beside: int,
        val_split: float,
        seed: int,
        ledger: Ledger,
    ) -> None:
        """
        Args:
            sources: names as `find_sources` gives them.
            share: of all training examples, above 0 and below 1.
            beside: how many training examples there are without replay.
            val_split: share of prompts that is held out of the training rows.
            ledger: the account of the run; rows that are not chosen stand in it as left out.

        Raises:
            UserError: a source has a share of its own.
        """
        for source in sources:
            if split_share(source)[1] != 1.0:
                raise UserError(
                    "a replay source takes no share of its own",
                    where=source,
                    next_step="Leave the # away; replay_share says how much of all is replayed",
                )
        self.sources = tuple(sources)
        self.share = share
        self.wanted = round(share / (1 - share) * beside)
        self.shapes: dict[str, str] = {}
        self._beside, self._val_split, self._seed = beside, val_split, seed
        self._ledger = ledger

    def conversations(self) -> Iterator[Conversation]:
        """The chosen conversations, in the order of the files; each waits in the ledger for its verdict."""
        chosen = self._choose()
        row = -1

        def choose(value: Mapping[str, Any]) -> int:
            nonlocal row
            row += 1
            return int(row < len(chosen) and chosen[row])

        reading = Reading(self.sources, ledger=self._ledger, choose=choose)
        yield from reading
        self.shapes = reading.shapes

    def report(self, delivered: int) -> None:
        """Note D071 if clearly fewer examples came than make the share."""
        if delivered >= 0.99 * self.wanted:
            return
        share = delivered / (delivered + self._beside)
        message = (
            f"{delivered:,} of {counted(self.wanted, 'example')} came of it: {share:.1%} of the training examples, "
            f"not {self.share:.1%}"
        )
        self._ledger.add(finding("D071", Origin(", ".join(self.sources), 0), message))

    def _choose(self) -> npt.NDArray[np.bool_]:
        """Which rows, by their position among those that can be parsed: the smallest hashes win."""
        keys = array("Q")

        def note(value: Mapping[str, Any]) -> int:
            keys.append(_key(value, self._seed))
            return 1

        usable = bytearray()
        for conversation in Reading(self.sources, choose=note):
            usable.extend(bytes(len(keys) - len(usable)))  # rows before this one that gave no conversation
            held_out = side_of(conversation, val_split=self._val_split, seed=self._seed) == "validation"
            usable[-1] = 2 if held_out or usable[-1] == 2 else 1
        usable.extend(bytes(len(keys) - len(usable)))
        order = np.where(np.frombuffer(usable, np.uint8) == 1, np.frombuffer(keys, np.uint64), _NEVER)
        chosen = np.zeros(len(keys), dtype=np.bool_)
        chosen[np.argsort(order, kind="stable")[: self.wanted]] = True
        chosen[order == _NEVER] = False
        return chosen


def _key(value: Mapping[str, Any], seed: int) -> int:
    content = json.dumps(value, sort_keys=True, ensure_ascii=False, default=repr)
    digest = blake2b(f"{seed} replay {content}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return min(int.from_bytes(digest, "big"), _NEVER - 1)
