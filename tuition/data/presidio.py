"""Names, places and numbers of identity, found by presidio: an extra, because it brings spaCy and its models.

`privacy` finds what has a form that can be known; a name has none, and takes a model of the language. Nothing
is downloaded here: presidio would fetch a missing model, so a missing one is refused before it is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tuition.conversation import Conversation
from tuition.data.catalogue import finding
from tuition.data.privacy import masked
from tuition.data.turns import text_of
from tuition.errors import Finding, UserError

PATTERNS = "patterns"

# found by `privacy` already, or no person's; and looking for addresses would ask the network for domains
_NOT_ASKED = {"EMAIL_ADDRESS", "PHONE_NUMBER", "CREDIT_CARD", "IBAN_CODE", "URL", "DATE_TIME", "NRP"}
_LEAST_SCORE = 0.5
_WINDOW_CHARACTERS, _OVERLAP_CHARACTERS = 100_000, 200  # spaCy refuses texts above a million


def presidio_check(model: str) -> Callable[[Conversation], Iterator[Finding]]:
    """A check of conversations for D070, with one finding for each kind and turn, the first of its kind masked.

    Args:
        model: an installed spaCy model or its folder, whose language is then the language of the data; or
            `patterns`, which looks for numbers of identity only and takes no model.

    Raises:
        UserError: presidio is not installed, or there is no such model.
    """
    engine, language = _engine(model)
    asked = sorted(set(engine.get_supported_entities(language=language)) - _NOT_ASKED)

    def check(conversation: Conversation) -> Iterator[Finding]:
        for position, message in enumerate(conversation.messages, 1):
            kinds: dict[str, dict[str, None]] = {}
            for kind, value in _found(engine, language, asked, text_of(message)):
                kinds.setdefault(kind, {})[value] = None
            for kind, values in kinds.items():
                several = f"{len(values)} of this kind, the first " if len(values) > 1 else ""
                what = kind.lower().replace("_", " ")
                shown = f"turn {position} seems to hold personal data ({what}): {several}{masked(next(iter(values)))}"
                yield finding("D070", conversation.origin, shown)

    return check


def _found(engine: Any, language: str, asked: list[str], text: str) -> Iterator[tuple[str, str]]:
    """Kind and text of what is found, in the order in which it stands."""
    for begin in range(0, len(text), _WINDOW_CHARACTERS - _OVERLAP_CHARACTERS):
        window = text[begin : begin + _WINDOW_CHARACTERS]
        results = engine.analyze(text=window, language=language, entities=asked, score_threshold=_LEAST_SCORE)
        for result in sorted(results, key=lambda result: (result.start, -result.score)):
            yield result.entity_type, window[result.start : result.end]


def _engine(model: str) -> tuple[Any, str]:
    """Presidio's analyzer, and the language that it reads."""
    try:
        import spacy
        from presidio_analyzer import AnalyzerEngine, RecognizerRegistry
        from presidio_analyzer.nlp_engine import SpacyNlpEngine
    except ImportError as error:
        raise UserError(
            f"presidio is not installed ({error.name} is missing)",
            where="--presidio",
            next_step="pip install 'tuition[presidio]', or leave it out: --deep finds e-mail, phone, cards and keys",
        ) from error
    pipeline = spacy.blank("en") if model == PATTERNS else _pipeline(model)
    loaded = SpacyNlpEngine(models=[{"lang_code": pipeline.lang, "model_name": model}])
    loaded.nlp = {pipeline.lang: pipeline}  # as presidio's manual does for a model that is loaded already
    registry = RecognizerRegistry(supported_languages=[pipeline.lang])
    registry.load_predefined_recognizers(languages=[pipeline.lang], nlp_engine=loaded)
    engine = AnalyzerEngine(registry=registry, nlp_engine=loaded, supported_languages=[pipeline.lang])
    return engine, pipeline.lang


def _pipeline(model: str) -> Any:
    import spacy

    try:
        pipeline = spacy.load(model)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            "there is no such spaCy model",
            where=f"--presidio {model}",
            next_step=f"python -m spacy download en_core_web_sm, or --presidio {PATTERNS}, which needs none",
        ) from error
    if "ner" not in pipeline.pipe_names and "entity_ruler" not in pipeline.pipe_names:
        raise UserError(
            "the spaCy model finds no names: it has no ner",
            where=f"--presidio {model}",
            next_step="Name a model with named entities, such as en_core_web_sm",
        )
    return pipeline
