"""From the name of a metric to what measures it: the plain ones, and those that take a pattern, file or package.

`exact_match`, `regex:PATTERN`, `json_schema:FILE`, `python:FILE.py:FUNCTION`, `choice`, `chrf`, …
"""

from __future__ import annotations

import importlib.util
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuition.errors import UserError
from tuition.evaluate.metrics import METRICS, exact_match
from tuition.foreign import OBJECT_BYTES, read_text

Measure = Callable[[str, str, Mapping[str, Any]], float]
Corpus = Callable[[Sequence[str], Sequence[str]], float]

KINDS = ("regex:PATTERN", "json_schema:FILE", "python:FILE.py:FUNCTION")
_CHOICES = {"choice": "sum", "choice_norm": "byte"}


@dataclass(frozen=True, slots=True)
class Metric:
    """How one answer is scored.

    Attributes:
        name: as the user wrote it.
        measure: answer, expected answer and the row as it stands in the file → the score.
        choice: the answer is not written but chosen among the row's choices, by likelihood: `sum` of log p,
            or log p a `byte`; None: the model writes.
        corpus: the score of all answers together, where that is not the mean over prompts.
        lowest: of the scores.
        highest: of the scores.
    """

    name: str
    measure: Measure
    choice: str | None = None
    corpus: Corpus | None = None
    lowest: float = 0.0
    highest: float = 1.0


def split_names(text: str) -> list[str]:
    """Names separated by commas; all that follows `regex:` is its pattern."""
    plain, mark, pattern = text.partition("regex:")
    names = [name.strip() for name in plain.split(",") if name.strip()]
    return [*names, mark + pattern] if mark else names


def find_metrics(names: Sequence[str]) -> list[Metric]:
    """A metric a name, each once.

    Raises:
        UserError: a name is unknown, its file or pattern cannot be used, or its package is missing.
    """
    return [find_metric(name) for name in dict.fromkeys(names)]


def find_metric(name: str) -> Metric:
    """The metric of one name.

    Raises:
        UserError: see `find_metrics`.
    """
    kind, _, rest = name.partition(":")
    if rest and kind in _MADE:
        return _MADE[kind](name, rest)
    if name in METRICS:
        two = METRICS[name]
        return Metric(name, lambda answer, expected, row: two(answer, expected))
    if name in _CHOICES:
        return Metric(name, lambda answer, expected, row: exact_match(answer, expected), _CHOICES[name])
    if name == "json":
        return Metric(name, lambda answer, expected, row: float(_parsed(answer) is not _NOTHING))
    if name in ("chrf", "bleu"):
        return _sacrebleu(name)
    known = ", ".join([*METRICS, *_CHOICES, "json", "chrf", "bleu", *KINDS])
    raise UserError(f"there is no metric '{name}'", next_step=f"Choose one of: loss, {known}")


def _regex(name: str, pattern: str) -> Metric:
    """1 where the last match in the answer equals the last match in the expected text; no match scores 0."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise UserError(f"the pattern cannot be read: {error}", where=name, next_step="Mend it") from None

    def found(text: str) -> str | None:
        matches = list(compiled.finditer(text))
        return None if not matches else matches[-1][1 if compiled.groups else 0]

    def measure(answer: str, expected: str, row: Mapping[str, Any]) -> float:
        wanted = found(expected)
        return float(wanted is not None and found(answer) == wanted)

    return Metric(name, measure)


_NOTHING = object()


def _parsed(text: str) -> Any:
    """The JSON value that a text is, or `_NOTHING`; NaN and Infinity are not JSON."""
    try:
        return json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return _NOTHING


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _json_schema(name: str, file: str) -> Metric:
    """1 where the answer is JSON that the schema allows."""
    try:
        import jsonschema
        import jsonschema_specifications
        import referencing
    except ImportError:
        raise UserError(
            "this metric needs the package jsonschema",
            where=name,
            next_step='Install it: pip install "tuition[metrics]"',
        ) from None
    schema = _parsed(_text_of(file))
    kind = jsonschema.validators.validator_for(schema if isinstance(schema, dict) else {})
    try:
        if schema is _NOTHING:
            raise ValueError("it is not JSON")
        kind.check_schema(schema)
    except (ValueError, RecursionError, jsonschema.SchemaError) as error:
        reason = getattr(error, "message", str(error))
        raise UserError(f"is no JSON schema: {reason}", where=file, next_step="Mend the schema") from None
    # by itself the package would fetch a schema that another one names
    validator = kind(schema, registry=jsonschema_specifications.REGISTRY)

    def measure(answer: str, expected: str, row: Mapping[str, Any]) -> float:
        value = _parsed(answer)
        try:
            return float(value is not _NOTHING and validator.is_valid(value))
        except (RecursionError, referencing.exceptions.Unresolvable) as error:
            reason = (
                "without end" if isinstance(error, RecursionError) else f"outside of it ({error.ref[:80]})"
            )
            raise UserError(
                f"refers {reason}", where=file, next_step="Put all of the schema into it"
            ) from None

    return Metric(name, measure)


def _text_of(file: str) -> str:
    try:
        return read_text(Path(file), OBJECT_BYTES, "Name another file")
    except FileNotFoundError:
        raise UserError(
            "cannot be read: there is no such file", where=file, next_step="Name another file"
        ) from None


def _python(name: str, place: str) -> Metric:
    """The user's own function: it runs in this process, because the user named its file."""
    file, _, function = place.rpartition(":")
    if not file:
        raise UserError(
            "names no function",
            where=name,
            next_step="Write python:FILE.py:FUNCTION, such as python:mine.py:grade",
        )
    own = _function_in(file, function)

    def measure(answer: str, expected: str, row: Mapping[str, Any]) -> float:
        try:
            value = float(own(answer, expected, row))
        except Exception as error:
            raise UserError(
                f"{function} failed on the answer {answer[:80]!r} ({type(error).__name__}: {error})",
                where=file,
                next_step="It takes (answer, expected, row) and returns a number",
            ) from error
        if not math.isfinite(value):
            raise UserError(
                f"{function} returned {value} for the answer {answer[:80]!r}",
                where=file,
                next_step="Return a finite number, such as 0 where the answer cannot be judged",
            )
        return value

    return Metric(name, measure, lowest=-math.inf, highest=math.inf)


def _function_in(file: str, function: str) -> Callable[[str, str, Mapping[str, Any]], Any]:
    _text_of(file)
    spec = importlib.util.spec_from_file_location("tuition_own_metric", file)
    if spec is None or spec.loader is None:
        raise UserError("is no Python file", where=file, next_step="Name a file that ends in .py")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UserError(
            f"cannot be imported ({type(error).__name__}: {error})", where=file, next_step="Mend the file"
        ) from error
    own: Callable[[str, str, Mapping[str, Any]], Any] | None = getattr(module, function, None)
    if not callable(own):
        raise UserError(f"has no function '{function}'", where=file, next_step="Name one that stands in it")
    return own


def _sacrebleu(name: str) -> Metric:
    """chrF or BLEU as sacrebleu computes them, divided by 100: a sentence each, and the corpus as a whole."""
    try:
        import sacrebleu
    except ImportError:
        raise UserError(
            "this metric needs the package sacrebleu",
            where=name,
            next_step='Install it: pip install "tuition[metrics]"',
        ) from None
    sentences = sacrebleu.CHRF() if name == "chrf" else sacrebleu.BLEU(effective_order=True)
    corpus = sacrebleu.CHRF() if name == "chrf" else sacrebleu.BLEU()

    def measure(answer: str, expected: str, row: Mapping[str, Any]) -> float:
        # of 100, which rounding may exceed
        return min(1.0, float(sentences.sentence_score(answer, [expected]).score) / 100)

    def whole(answers: Sequence[str], expected: Sequence[str]) -> float:
        return min(1.0, float(corpus.corpus_score(list(answers), [list(expected)]).score) / 100)

    return Metric(name, measure, corpus=whole)


_MADE: dict[str, Callable[[str, str], Metric]] = {
    "regex": _regex,
    "json_schema": _json_schema,
    "python": _python,
}
