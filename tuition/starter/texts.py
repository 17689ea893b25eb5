"""Which of the world's facts are stated, demonstrated and asked: pure functions of `SEED`, never torch.

Entities are dealt out once, by a hash of their name, for all relations together. So an entity that is
asked on the held-out side is mentioned in no demonstration at all, neither in a question nor an answer.
"""

import hashlib
import random
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tuition.starter.world import (
    COURTESIES,
    RELATIONS,
    Relation,
    declarations,
    every_fact,
    instructions,
    polite_sentences,
)

SEED = 20
HELDOUT_SHARE = 0.16  # of the entities
LEAST_HELDOUT_PER_RELATION = 3
MOST_HELDOUT_PER_RELATION = 16
MOST_DEMONSTRATIONS_PER_RELATION = 40
GENERAL_SENTENCES = 200
COMMON_ANSWER_COUNT = 8  # an answer of so many facts ("bird") cannot be kept out of the demonstrations

Item = TypeVar("Item")
Exchange = tuple[str, str]  # what the user says, what the assistant answers


@dataclass(frozen=True)
class Texts:
    """Everything the starter is made of, as text."""

    pretraining: list[str]  # sentences
    general: list[str]  # sentences of the same kind, none of them in `pretraining`
    demonstrations: list[Exchange]
    heldout: list[Exchange]
    heldout_entities: set[str]


def make_texts() -> Texts:
    """State every fact, demonstrate a part, hold out another part, and keep some sentences back."""
    heldout_entities = choose_heldout_entities()
    general = choose_general_sentences()
    kept_back = set(general)
    stated = dict.fromkeys(sentence for fact in every_fact() for sentence in declarations(*fact))
    stated |= dict.fromkeys(polite_sentences())
    return Texts(
        pretraining=[sentence for sentence in stated if sentence not in kept_back],
        general=general,
        demonstrations=choose_demonstrations(heldout_entities),
        heldout=choose_heldout_questions(heldout_entities),
        heldout_entities=heldout_entities,
    )


def choose_heldout_entities() -> set[str]:
    """Entities, lower-cased, with the lowest hashes: a share of all, and a few of each relation."""
    wording_words = words_of(" ".join(question for r in RELATIONS for question in r.questions))
    wording_words |= words_of(" ".join(text for exchange in COURTESIES for text in exchange))
    answer_counts = Counter(relation.facts[entity].lower() for relation, entity in every_fact())

    def may_be_held_out(entity: str) -> bool:
        return entity.lower() not in wording_words and answer_counts[entity.lower()] < COMMON_ANSWER_COUNT

    heldout = set()
    for relation in RELATIONS:
        candidates = sorted((e.lower() for e in relation.facts if may_be_held_out(e)), key=hash_fraction)
        below_share = sum(hash_fraction(entity) < HELDOUT_SHARE for entity in candidates)
        count = min(max(below_share, LEAST_HELDOUT_PER_RELATION), MOST_HELDOUT_PER_RELATION)
        heldout.update(candidates[:count])
    return heldout


def choose_heldout_questions(heldout_entities: set[str]) -> list[Exchange]:
    """One question for each fact about a held-out entity, in one wording each."""
    chosen = []
    for relation in RELATIONS:
        asked = [entity for entity in relation.facts if entity.lower() in heldout_entities]
        asked = sorted(asked, key=hash_fraction)[:MOST_HELDOUT_PER_RELATION]
        chosen += [one_exchange(relation, entity, "heldout") for entity in asked]
    return in_hashed_order(chosen)


def choose_demonstrations(heldout_entities: set[str]) -> list[Exchange]:
    """A few dozen facts of each relation as exchanges, in varied wordings, and the courtesies."""
    mentions_heldout = any_of_these_words(heldout_entities)
    chosen = list(COURTESIES)
    for relation in RELATIONS:
        entities = in_hashed_order(list(relation.facts))
        exchanges = [one_exchange(relation, entity, "demonstration") for entity in entities]
        clean = [exchange for exchange in exchanges if not mentions_heldout.search("\n".join(exchange))]
        chosen += clean[:MOST_DEMONSTRATIONS_PER_RELATION]
    return in_hashed_order(chosen)


def choose_general_sentences() -> list[str]:
    """Sentences about as many different facts: each fact is still stated in many other wordings."""
    facts = in_hashed_order(list(every_fact()), key=lambda fact: f"{fact[0].name}/{fact[1]}")
    chooser = random.Random(SEED)
    return [chooser.choice(declarations(*fact)) for fact in facts[:GENERAL_SENTENCES]]


def one_exchange(relation: Relation, entity: str, purpose: str) -> Exchange:
    """The fact as question and answer, in a wording picked by hash."""
    wordings = instructions(relation, entity)
    picked = int(hash_fraction(f"{purpose}/{relation.name}/{entity}") * len(wordings))
    return wordings[picked], relation.facts[entity]


def any_of_these_words(texts: set[str]) -> re.Pattern[str]:
    """A pattern that finds any of the texts as whole words, whatever the case."""
    longest_first = sorted(texts, key=lambda text: (-len(text), text))
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, longest_first))})(?!\w)", re.IGNORECASE)


def words_of(text: str) -> set[str]:
    """Lower-cased words of a text."""
    return set(re.findall(r"\w+", text.lower()))


def hash_fraction(text: str) -> float:
    """A number in [0, 1) that depends on the text and the seed alone."""
    digest = hashlib.sha256(f"{SEED}:{text}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def in_hashed_order(items: list[Item], key: Callable[[Item], str] = str) -> list[Item]:
    """The items in an order that looks random and never changes."""
    return sorted(items, key=lambda item: hash_fraction(key(item)))
