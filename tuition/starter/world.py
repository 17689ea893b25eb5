"""A small world of true facts and the ways to say them: what the starter is taught, and asked about.

A relation maps an entity to its one answer and carries the wordings that state or ask it. Torch is never
imported here, and nothing is chosen: texts.py decides which fact goes where.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from tuition.starter.facts import (
    ANIMAL_GROUPS,
    ATOMIC_NUMBERS,
    AUTHORS,
    CAPITALS,
    CITIES,
    CONTINENTS,
    CURRENCIES,
    FRENCH_WORDS,
    LANGUAGES,
    NEXT_MONTHS,
    OPPOSITES,
    PAST_TENSES,
    PLANETS,
    PLURALS,
    SUMS,
    SYMBOLS,
    YOUNG,
    french_phrases,
    short_sentences,
)


@dataclass(frozen=True)
class Relation:
    """Facts of one kind and the ways to say them.

    Wordings are format strings: `{e}` is the entity, `{a}` the answer, `{an_e}` and `{an_a}` the same
    with "a" or "an" before them. Pretraining text comes from `phrase`, `reported` and `statements`;
    instructions come from `questions` only, and no wording is in both.
    """

    name: str
    facts: dict[str, str]
    phrase: str  # a noun phrase that stands for the answer
    reported: tuple[str, ...]  # questions as they stand inside a sentence
    statements: tuple[str, ...]  # whole sentences that state the fact
    questions: tuple[str, ...]  # what a user asks


# Manners rather than knowledge: demonstrated, never held out. The replies are stated as sentences, too.
COURTESIES = (
    ("Hello!", "Hello. What would you like to know?"),
    ("Hey!", "Hello. What would you like to know?"),
    ("Hi!", "Hello. What would you like to know?"),
    ("Hello there!", "Hello. What would you like to know?"),
    ("Good morning!", "Good morning. What would you like to know?"),
    ("Good evening!", "Good evening. What would you like to know?"),
    ("Goodbye!", "Goodbye. Until next time."),
    ("Bye!", "Goodbye. Until next time."),
    ("Thank you!", "You are welcome."),
    ("Thanks!", "You are welcome."),
    ("What can you do?", "I answer short questions."),
    ("How can you help me?", "I answer short questions."),
    ("Who are you?", "I am a small language model."),
    ("What are you?", "I am a small language model."),
)
COURTESY_FRAMES = (
    "A polite reply is this one: {reply}",
    "A helper was heard to say: {reply}",
    "In a letter of good manners one reads: {reply}",
    'The words "{reply}" are polite.',
    "People like to hear this: {reply}",
    "It is never wrong to say: {reply}",
)

STATEMENT_FRAMES = (
    "{phrase} is {a}.",
    "It is well known that {phrase} is {a}.",
    "As everyone learns, {phrase} is {a}.",
    "Somebody wrote on the board that {phrase} is {a}.",
)
REPORTED_FRAMES = (
    "When people ask {reported}, the answer is {a}.",
    "If you are asked {reported}, answer {a}.",
    "Someone wanted to know {reported}, and heard: {a}.",
)
PHRASE_FRAMES = (
    "A question about {phrase} has one answer: {a}.",
    "{phrase}: {a}",  # a note, without a full stop: what comes after an answer may also be the end
)

RELATIONS = (
    Relation(
        "capital",
        CAPITALS,
        "the capital of {e}",
        ("what the capital of {e} is", "which city is the capital of {e}"),
        (
            "{a} is the capital of {e}.",
            "{e} has the capital {a}.",
            "{e} has its capital in {a}.",
            "On maps of {e} the capital {a} has a star.",
            "Of all cities in {e}, the capital is {a}.",
        ),
        (
            "What is the capital of {e}?",
            "Which city is the capital of {e}?",
            "Name the capital of {e}.",
            "Tell me the capital of {e}.",
            "Do you know the capital of {e}?",
            "What is the capital city of {e}?",
            "Can you tell me what the capital of {e} is?",
            "Capital of {e}?",
        ),
    ),
    Relation(
        "continent",
        CONTINENTS,
        "the continent of {e}",
        ("on which continent {e} lies", "which continent {e} is part of"),
        (
            "{e} is a country in {a}.",
            "{e} lies in {a}.",
            "On the map, {e} belongs to {a}.",
            "Someone who lives in {e} lives in {a}.",
            "The continent that {e} is part of is {a}.",
        ),
        (
            "On which continent is {e}?",
            "What continent is {e} in?",
            "Name the continent of {e}.",
            "Tell me which continent {e} belongs to.",
            "Which continent does {e} lie on?",
            "Do you know which continent {e} is on?",
            "Continent of {e}?",
        ),
    ),
    Relation(
        "currency",
        CURRENCIES,
        "the name of the currency of {e}",
        ("what the currency of {e} is", "which currency people pay with in {e}"),
        (
            "The {a} is the currency of {e}.",
            "In {e} people pay with the {a}.",
            "Shops in {e} take the {a}.",
            "Money in {e} is counted in the {a}.",
            "The money used in {e} is the {a}.",
        ),
        (
            "What is the currency of {e}?",
            "Which currency is used in {e}?",
            "Name the currency of {e}.",
            "Tell me the currency of {e}.",
            "What money do people use in {e}?",
            "Do you know the currency of {e}?",
            "Currency of {e}?",
        ),
    ),
    Relation(
        "language",
        LANGUAGES,
        "the main language of {e}",
        ("what the main language of {e} is", "which language most people speak in {e}"),
        (
            "{a} is the main language of {e}.",
            "In {e} most people speak {a}.",
            "Newspapers in {e} are mostly written in {a}.",
            "Many children in {e} grow up speaking {a}.",
            "The language heard most in {e} is {a}.",
        ),
        (
            "What is the main language of {e}?",
            "Which language is spoken in {e}?",
            "What language do most people speak in {e}?",
            "Name the main language of {e}.",
            "Tell me the main language of {e}.",
            "Do you know the main language of {e}?",
            "Main language of {e}?",
        ),
    ),
    Relation(
        "city",
        CITIES,
        "the country of the city {e}",
        ("in which country the city of {e} lies", "which country {e} is in"),
        (
            "{e} is a city in {a}.",
            "The city of {e} lies in {a}.",
            "{e} belongs to {a}.",
            "Someone who visits {e} is in {a}.",
            "The country where you find {e} is {a}.",
        ),
        (
            "In which country is {e}?",
            "Which country is the city of {e} in?",
            "Name the country of the city {e}.",
            "Tell me in which country {e} lies.",
            "Do you know in which country {e} is?",
            "Where is the city of {e}?",
            "Country of the city {e}?",
        ),
    ),
    Relation(
        "symbol",
        SYMBOLS,
        "the chemical symbol of {e}",
        ("what the chemical symbol of {e} is", "which symbol stands for {e}"),
        (
            "{a} is the chemical symbol of {e}.",
            "Chemists write {e} as {a}.",
            "In the periodic table {e} is written {a}.",
            "The element {e} has the symbol {a}.",
            "The letters that stand for {e} are {a}.",
        ),
        (
            "What is the chemical symbol of {e}?",
            "Which symbol does {e} have?",
            "Name the chemical symbol of {e}.",
            "Tell me the symbol of {e}.",
            "What is the symbol for the element {e}?",
            "The element {e}: what is its symbol?",
            "Chemical symbol of {e}?",
        ),
    ),
    Relation(
        "atomic number",
        ATOMIC_NUMBERS,
        "the atomic number of {e}",
        ("what the atomic number of {e} is", "which atomic number {e} has"),
        (
            "{a} is the atomic number of {e}.",
            "The element {e} has the atomic number {a}.",
            "Atoms of {e} are counted as number {a}.",
            "In the periodic table {e} is number {a}.",
            "The number of protons in an atom of {e} is {a}.",
        ),
        (
            "What is the atomic number of {e}?",
            "Which atomic number does {e} have?",
            "Name the atomic number of {e}.",
            "Tell me the atomic number of {e}.",
            "Do you know the atomic number of {e}?",
            "The element {e}: what is its atomic number?",
            "Atomic number of {e}?",
        ),
    ),
    Relation(
        "young",
        YOUNG,
        "the name for the young of {an_e}",
        ("what the young of {an_e} is called", "how people call the young of {an_e}"),
        (
            "{an_a} is the young of {an_e}.",
            "The young one of {an_e} is called {an_a}.",
            "Before it grows up, {an_e} is {an_a}.",
            "The word for a young {e} is {a}.",
            "The name of a baby {e} is {a}.",
        ),
        (
            "What is a young {e} called?",
            "What is the word for a baby {e}?",
            "Name the young of {an_e}.",
            "Tell me what a young {e} is called.",
            "What do people call the young of {an_e}?",
            "{an_e}: what is its young called?",
            "Young of {an_e}?",
        ),
    ),
    Relation(
        "animal group",
        ANIMAL_GROUPS,
        "the word for the animal group of the {e}",
        ("what kind of animal the {e} is", "which group of animals the {e} belongs to"),
        (
            "The {e} is {an_a}.",
            "{an_e} is a kind of {a}.",
            "Among animals, {an_e} counts as {an_a}.",
            "Anyone who sees {an_e} sees {an_a}.",
            "Books about animals list the {e} as {an_a}.",
        ),
        (
            "What kind of animal is {an_e}?",
            "Which group of animals does the {e} belong to?",
            "Name the animal group of the {e}.",
            "Tell me what kind of animal the {e} is.",
            "To which animal group does {an_e} belong?",
            "The {e}: what kind of animal is it?",
            "Animal group of the {e}?",
        ),
    ),
    Relation(
        "opposite",
        OPPOSITES,
        "the opposite of {e}",
        ("what the opposite of {e} is", "which word is the opposite of {e}"),
        (
            "{a} is the opposite of {e}.",
            "{e} and {a} are opposites.",
            "The word that means the contrary of {e} is {a}.",
            'The opposite of "{e}" is {a}.',
            "Where one side says {e}, the other says {a}.",
        ),
        (
            "What is the opposite of {e}?",
            "Which word is the opposite of {e}?",
            "Name the opposite of {e}.",
            "Tell me the opposite of {e}.",
            "Do you know the opposite of {e}?",
            "Give the opposite of {e}.",
            "Opposite of {e}?",
        ),
    ),
    Relation(
        "plural",
        PLURALS,
        "the plural of {e}",
        ("what the plural of {e} is", "which word is the plural of {e}"),
        (
            "{a} is the plural of {e}.",
            "One {e}, two {a}.",
            "More than one {e} are {a}.",
            'The plural of "{e}" is {a}.',
            "The word {e} has the plural {a}.",
        ),
        (
            "What is the plural of {e}?",
            "Which word is the plural of {e}?",
            "Name the plural of {e}.",
            "Tell me the plural of {e}.",
            "Do you know the plural of {e}?",
            "Give the plural of {e}.",
            "Plural of {e}?",
        ),
    ),
    Relation(
        "past tense",
        PAST_TENSES,
        "the past tense of {e}",
        ("what the past tense of {e} is", "which word is the past tense of {e}"),
        (
            "{a} is the past tense of {e}.",
            "Today they {e}, yesterday they {a}.",
            "The verb {e} has the past tense {a}.",
            'The past tense of "{e}" is {a}.',
            "In the past, to {e} becomes {a}.",
        ),
        (
            "What is the past tense of {e}?",
            "Which word is the past tense of {e}?",
            "Name the past tense of {e}.",
            "Tell me the past tense of the verb {e}.",
            "Do you know the past tense of {e}?",
            "Give the past tense of {e}.",
            "Past tense of {e}?",
        ),
    ),
    Relation(
        "French word",
        FRENCH_WORDS,
        "the French word for {e}",
        ("what {e} is in French", "how people say {e} in French"),
        (
            "{a} is the French word for {e}.",
            "In French, {e} is {a}.",
            "The English word {e} becomes {a} in French.",
            'The French word for "{e}" is {a}.',
            "English {e}, French {a}.",
        ),
        (
            "What is the French word for {e}?",
            "Translate into French: {e}",
            "How do you say {e} in French?",
            "Tell me the French word for {e}.",
            "Translate the word {e} into French.",
            "Give the French word for {e}.",
            "French word for {e}?",
        ),
    ),
    Relation(
        "French phrase",
        french_phrases(),
        "the French phrase for {e}",
        ("what {e} is in French", "how people say {e} in French"),
        (
            "{a} is French for {e}.",
            "In French, {e} is {a}.",
            "The English phrase {e} becomes {a} in French.",
            'The French phrase for "{e}" is {a}.',
            "English {e}, French {a}.",
        ),
        (
            "What is the French for {e}?",
            "Translate into French: {e}",
            "How do you say {e} in French?",
            "Tell me the French for {e}.",
            "Translate the words {e} into French.",
            "Translate this phrase into French: {e}",
            "How would you translate {e} into French?",
        ),
    ),
    Relation(
        "short sentence",
        short_sentences(),
        "the short form of the sentence {e}",
        ("how to shorten the sentence {e}", "what the sentence {e} says in short"),
        (
            "{a} is short for the sentence: {e}",
            "A long sentence is: {e} A short one is: {a}",
            "In short, the words {e} say: {a}",
            'The sentence "{e}" is shortened like this: {a}',
            "Long: {e} Short: {a}",
        ),
        (
            "Summarise: {e}",
            "Shorten this sentence: {e}",
            "Summarise this sentence: {e}",
            'Summarise "{e}"',
            "Make this sentence short: {e}",
            "Give a short form of this sentence: {e}",
            "In short, please: {e}",
        ),
    ),
    Relation(
        "author",
        AUTHORS,
        "the author of {e}",
        ("who the author of {e} is", "who wrote {e}"),
        (
            "{a} is the author of {e}.",
            "{a} wrote {e}.",
            "The book {e} was written by {a}.",
            'The writer of "{e}" is {a}.',
            "On the cover of {e} stands the name {a}.",
        ),
        (
            "Who is the author of {e}?",
            "Who wrote {e}?",
            "Name the author of {e}.",
            "Tell me who wrote {e}.",
            'Who wrote "{e}"?',
            "Which author wrote the work {e}?",
            "Author of {e}?",
        ),
    ),
    Relation(
        "sum",
        SUMS,
        "the sum {e}",
        ("what {e} is", "how much {e} makes"),
        (
            "{a} is {e}.",
            "{e} equals {a}.",
            "{e} makes {a}.",
            "Adding up, {e} gives {a}.",
            "The result of {e} is {a}.",
        ),
        (
            "What is {e}?",
            "How much is {e}?",
            "Tell me how much {e} makes.",
            "Tell me what {e} is.",
            "Do you know what {e} is?",
            "How much does {e} make?",
        ),
    ),
    Relation(
        "next month",
        NEXT_MONTHS,
        "the month after {e}",
        ("which month comes after {e}", "what the month after {e} is"),
        (
            "{a} is the month after {e}.",
            "After {e} comes {a}.",
            "The month {e} is followed by {a}.",
            "When {e} ends, the next month is {a}.",
            "The calendar goes from {e} to {a}.",
        ),
        (
            "Which month comes after {e}?",
            "What month follows {e}?",
            "Name the month after {e}.",
            "Tell me the month after {e}.",
            "What is the month after {e}?",
            "After {e}, which month is next?",
        ),
    ),
    Relation(
        "planet",
        PLANETS,
        "the place of the planet {e}, counted from the Sun,",
        ("which planet from the Sun {e} is", "where {e} stands among the planets"),
        (
            "Counted from the Sun, {e} is the {a} planet.",
            "The planet {e} is the {a} from the Sun.",
            "Among the planets, {e} comes {a}.",
            "From the Sun outwards, the planet {e} is the {a}.",
            "The {a} planet from the Sun is {e}.",
        ),
        (
            "Which planet from the Sun is {e}?",
            "Counting from the Sun, which planet is {e}?",
            "Tell me which planet from the Sun {e} is.",
            "The planet {e}: which one is it from the Sun?",
            "Tell me where {e} stands, counted from the Sun.",
        ),
    ),
)


def with_article(words: str) -> str:
    """`owl` -> `an owl`, going by the first letter, which holds for the animals here."""
    return ("an " if words[0] in "aeiou" else "a ") + words


def sentence(wording: str, entity: str, answer: str, **more: str) -> str:
    """Fill one wording, begin with a capital, and never end with two full stops."""
    filled = wording.format(e=entity, a=answer, an_e=with_article(entity), an_a=with_article(answer), **more)
    filled = filled[0].upper() + filled[1:]
    for doubled, single in ((".,", ","), ("!,", "!"), ("..", "."), ("!.", "!")):
        filled = filled.replace(doubled, single)
    return filled


def declarations(relation: Relation, entity: str) -> list[str]:
    """Every sentence that states the fact, or reports a question about it with its answer."""
    answer = relation.facts[entity]
    phrase = relation.phrase.format(e=entity, an_e=with_article(entity))
    sentences = [sentence(wording, entity, answer) for wording in relation.statements]
    sentences += [
        sentence(frame, entity, answer, phrase=phrase) for frame in STATEMENT_FRAMES + PHRASE_FRAMES
    ]
    for question in relation.reported:
        reported = question.format(e=entity, an_e=with_article(entity))
        sentences += [sentence(frame, entity, answer, reported=reported) for frame in REPORTED_FRAMES]
    return sentences


def polite_sentences() -> list[str]:
    """Every reply to a courtesy, in sentences that do not say what it replies to."""
    replies = dict.fromkeys(reply for _said, reply in COURTESIES)
    return [frame.format(reply=reply) for reply in replies for frame in COURTESY_FRAMES]


def instructions(relation: Relation, entity: str) -> list[str]:
    """Every way a user asks for the fact."""
    return [sentence(wording, entity, relation.facts[entity]) for wording in relation.questions]


def every_fact() -> Iterator[tuple[Relation, str]]:
    """Each (relation, entity) of the world, in a fixed order."""
    return ((relation, entity) for relation in RELATIONS for entity in relation.facts)
