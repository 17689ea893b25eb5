"""What is trained beside what is served, for every learned turn of every row: the ids before it, and its own.

Serves the proof alone. Everything is asked of transformers anew (see `Serving`); what the renderer made is only
looked at.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuition.conversation import Message, Rendered
from tuition.render.finished import Answer, Finished
from tuition.render.partly import Asked
from tuition.render.renderer import Outcome, Renderer
from tuition.render.serving import Serving
from tuition.render.shown import Row, Shown, at_once, parts_of
from tuition.render.spelled import Spelled
from tuition.render.tokens import Ids

_LOSSES = {"R015", "R018", "R021", "R023"}  # findings of a row that lost turns


@dataclass(slots=True)
class Compared:
    """What came of comparing some rows; the fields are those of `Evidence`."""

    prompts: int = 0
    answers: int = 0
    spelled_turns: int = 0
    unlike_serving: str | None = None
    unlike_written: str | None = None
    misplaced: str | None = None
    forged: str | None = None


class Parity:
    """Compares rows with what transformers makes of them.

    Args:
        renderer: asked for its tokenizer, its template and what it learns, and for nothing that it made.
    """

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._tokens = renderer.tokens
        self._serving = Serving(renderer)
        self._finished = Finished(renderer)
        self._spelled = Spelled(renderer, self._serving)
        opening, closing = map(re.escape, renderer.span_markers)
        self._span = re.compile(f"{opening}(.*?){closing}", re.DOTALL)

    def compare(self, outcomes: Sequence[Outcome]) -> Compared:
        """Compare some rows, each of which has an example."""
        seen = Compared()
        texts = [outcome for outcome in outcomes if outcome.conversation.plain]
        rows = [self._row(outcome) for outcome in outcomes if not outcome.conversation.plain]
        compared = []
        for row in rows:
            if self._spelled.holds(row.outcome):
                self._compare_control_tokens(row, seen)
            else:
                compared.append(row)
        for few in at_once(compared):
            self._compare_turns(few, seen)
        self._compare_texts([text for text in texts if not self._spelled.holds(text)], seen)
        return seen

    # --- chats ---

    def _row(self, outcome: Outcome) -> Row:
        messages = outcome.conversation.messages
        answers = [n for n, message in enumerate(messages) if message.role == "assistant"]
        if self._renderer.train_on == "last":
            answers = answers[-1:]
        row = Row(outcome, [n for n in answers if n and messages[n].weight != 0])
        if self._renderer.train_on == "spans":
            row.learned = [n for n in row.learned if self._asks(row, n)]
        return row

    def _compare_turns(self, rows: Sequence[Row], seen: Compared) -> None:
        """Ask for the prompt and the end of each learned turn, and look for their ids in the examples."""
        parts = [part for row in rows for part in parts_of(row)]
        for part, ids in zip(parts, self._serving.ids_along([*map(self._texts, parts)]), strict=True):
            for position, served, written in zip(part.positions, ids[::2], ids[1::2], strict=False):
                self._compare_turn(part, position, served, written, seen)
            if self._ends_with_another(part) and not self._finished.begins(part.examples[0], ids[-1]):
                seen.unlike_written = seen.unlike_written or part.row.where(
                    part.places[self._last_learned(part)]
                )
        for row in rows:
            self._conclude(row, seen)

    def _texts(self, part: Shown) -> list[str]:
        """For each learned turn what is fed before it and what is written through it, in their order."""
        texts = self._serving.texts(part.conversation, part.positions, thinks=part.row.has("R029"))
        if self._ends_with_another(part):
            texts.append(self._serving.finished(part.conversation, self._last_learned(part)))
        return texts

    def _ends_with_another(self, part: Shown) -> bool:
        """Whether an example learns what no answer follows, so that it is compared as a whole."""
        is_answer = self._last_learned(part) in part.positions
        is_whole = len(part.examples) == 1 and not part.row.has("R022", *_LOSSES)
        return self._renderer.train_on == "all" and is_whole and not is_answer

    def _last_learned(self, part: Shown) -> int:
        """Where the last message stands that may be learned: an example goes no further."""
        messages = part.conversation.messages
        return max((n for n, m in enumerate(messages) if self._is_learned(m)), default=0)

    def _compare_turn(self, part: Shown, position: int, served: Ids, written: Ids, seen: Compared) -> None:
        fitting = [example for example in part.examples if self._is_answered(example, served, written)]
        answers = [self._answer(part, position, example, len(served), written) for example in fitting]
        as_written = [answer for answer in answers if self._finished.is_as_written(answer)]
        alone = [answer for answer in as_written if self._finished.is_alone(answer)]
        place = part.places[position]
        if alone:
            seen.prompts += place not in part.row.found
            seen.answers += place not in part.row.found
            part.row.found.add(place)
            part.row.seen_of(alone[0].example)[alone[0].start : self._finished.end(alone[0])] = True
        elif answers:
            part.row.unlike[place] = bool(as_written)

    def _conclude(self, row: Row, seen: Compared) -> None:
        """Note what of a row was not found as it must be."""
        if (unseen := self._not_found(row)) is not None:
            match row.unlike.get(unseen):
                case None:
                    seen.unlike_serving = seen.unlike_serving or row.where(unseen)
                case False:
                    seen.unlike_written = seen.unlike_written or row.where(unseen)
                case True:
                    seen.misplaced = seen.misplaced or row.where(unseen)
        elif not self._is_accounted_for(row):
            seen.misplaced = seen.misplaced or str(row.conversation.origin)

    def _is_accounted_for(self, row: Row) -> bool:
        """Whether nothing is learned but the turns that were found, or, where all is, nothing else is context."""
        messages, examples = row.conversation.messages, row.outcome.examples
        if self._renderer.train_on == "all":
            if len(examples) > 1 or any(message.weight is not None for message in messages):
                return True  # between the turns stands what another example learns, or what has a weight
            (example,) = examples
            unlike = example.supervised != np.float32(row.conversation.weight)
            templates_own_beginning = np.flatnonzero(example.supervised)[0]
            unlike[:templates_own_beginning] = False
            odd = {id(example): unlike}
        else:
            others = any(self._is_learned(message) for message in messages if message.role != "assistant")
            if others or messages[0].role == "assistant":
                return True  # those are learned and were not looked for
            odd = {id(example): example.supervised != 0 for example in examples}
        return not any(self._are_text(e, odd[id(e)] & ~row.seen_of(e)) for e in examples)

    def _are_text(self, example: Rendered, chosen: npt.NDArray[np.bool_]) -> bool:
        """Whether these are tokens, and more than the white space and the end of a turn that a span may be."""
        spans = self._renderer.train_on == "spans"
        return bool(chosen.any()) and not (
            spans and all(map(self._finished.ends_a_turn, example.ids[chosen].tolist()))
        )

    def _is_answered(self, example: Rendered, served: Ids, written: Ids) -> bool:
        """Whether the example begins with these ids and learns from what follows: at once where whole turns are."""
        turn = slice(len(served), len(served) + 1 if self._renderer.learns_whole_turns else len(written))
        return (
            len(example) > len(served)
            and np.array_equal(example.ids[: len(served)], served)
            and bool((example.supervised[turn] > 0).any())
        )

    def _answer(self, part: Shown, position: int, example: Rendered, start: int, written: Ids) -> Answer:
        conversation, place = part.conversation, part.places[position]
        message = conversation.messages[position]
        is_cut = part.row.has("R015")
        # what a cut leaves of the message behind may be no more than its weight on what ends this one
        behind = (part.row.conversation.messages[place:] if is_cut else conversation.messages[position:])[1:2]
        return Answer(
            example,
            start,
            _weight(message) * conversation.weight,
            written,
            is_cut=is_cut,
            joins=self._is_learned(conversation.messages[position - 1]),
            is_joined=any(map(self._is_learned, behind)),
            asked=self._asked(part.row, place),
        )

    def _is_learned(self, message: Message) -> bool:
        """Whether a message beside an answer may be learned."""
        if message.weight is None:
            return message.role == "assistant" or self._renderer.train_on == "all"
        return message.weight > 0

    def _asks(self, row: Row, place: int) -> bool:
        """Whether there is a text between the markers of a message."""
        asked = self._asked(row, place)
        return asked is not None and any(a < b for a, b in (*asked.thought_ranges, *asked.content_ranges))

    def _asked(self, row: Row, place: int) -> Asked | None:
        """What of a message is learned, where that is not all of it."""
        message = row.as_read(place)
        if self._renderer.train_on == "spans":
            thinks = self._renderer.learn_reasoning
            return Asked.between_markers(message, self._span, thinks=thinks)
        thinks = bool(message.reasoning and message.reasoning.strip())
        if self._renderer.learn_reasoning or not thinks or row.conversation.plain:
            return None
        return Asked.behind_the_thought(message)

    def _not_found(self, row: Row) -> int | None:
        """The first answer that must stand in an example as it is served, and does not."""
        return next((place for place in self._must_be_found(row) if place not in row.found), None)

    def _must_be_found(self, row: Row) -> Iterator[int]:
        """Every learned answer, or of a row that lost some, the last that stands in each of its parts.

        Where turns are learned whole, also what stands behind its prompt as something else: no later turn does.
        """
        if not row.has(*_LOSSES):
            yield from row.learned
            return
        if self._renderer.learns_whole_turns:
            yield from (place for place in row.learned if place in row.unlike)
        if self._renderer.train_on != "all":  # an example may end anywhere then
            parts = (part for part in parts_of(row) if part.conversation is not row.conversation)
            # a part ends with the last turn that it learns, which may be no answer
            yield from (part.places[-1] for part in parts if part.places[-1] in row.learned)

    def _compare_control_tokens(self, row: Row, seen: Compared) -> None:
        """Of a row that spells control tokens out, only those of the template can be compared."""
        for part in parts_of(row):
            begins = self._spelled.begins(part.conversation, part.positions, part.examples)
            if begins is None:
                return
            seen.spelled_turns += len(begins)
            row.found |= {part.places[n] for n, does in zip(part.positions, begins, strict=True) if does}
        if seen.forged is None and self._not_found(row) is not None:
            seen.forged = f"{row.conversation.origin} has control tokens that the template did not write"

    # --- running text ---

    def _compare_texts(self, outcomes: Sequence[Outcome], seen: Compared) -> None:
        """Look for the ids of each text in its example, or in its windows laid end to end."""
        texts = [outcome.conversation.messages[0].content for outcome in outcomes]
        for outcome, ids in zip(outcomes, self._serving.ids(texts, plain=True), strict=True):
            row = Row(outcome, [0])
            (message,) = outcome.conversation.messages
            ends = self._tokens.eos_id is None or ids[-1:].tolist() == [self._tokens.eos_id]
            written = ids if ends else np.append(ids, np.int32(self._tokens.eos_id or 0))
            windows = _laid_out(outcome.examples, written, self._renderer.max_length - 1)
            answer = None if windows is None else self._text(row, message, windows, written)
            if answer is None or not self._finished.is_as_written(answer):
                seen.unlike_written = seen.unlike_written or row.where(0)
            elif not self._finished.is_alone(answer):
                seen.misplaced = seen.misplaced or row.where(0)
            else:
                seen.answers += 1

    def _text(self, row: Row, message: Message, windows: Rendered, written: Ids) -> Answer:
        weight = _weight(message) * row.conversation.weight
        asked = self._asked(row, 0)
        first = 0 if asked is not None else 1  # nothing precedes the first token, so it is not learned
        start = max(first, len(self._tokens.prefix_ids))
        return Answer(windows, start, weight, written, is_cut=row.has("R015"), asked=asked)


def _laid_out(windows: Sequence[Rendered], written: Ids, stride: int) -> Rendered | None:
    """The example of a text, or its windows where they stand in it; None where one stands nowhere.

    Args:
        stride: a window begins at a multiple of it, with the last token of the one before. Those with nothing
            learned are left out.
    """
    supervised = np.zeros(len(written), dtype=np.float32)
    begin = 0
    for window in windows:
        while begin < len(written) and not np.array_equal(written[begin : begin + len(window)], window.ids):
            begin += stride
        if begin >= len(written):
            return None
        supervised[begin + 1 : begin + len(window)] = window.supervised[1:]
        begin += stride
    return Rendered(written, supervised, windows[0].origin)


def _weight(message: Message) -> float:
    return 1.0 if message.weight is None else message.weight
