"""The language of a text, guessed by its script and its commonest small words.

Good enough to say that a row is not in the language of the rest, and for no more. It knows the languages of
`_SMALL_WORDS` and those that have a script of their own; it says nothing about a text of few words, about
code and formulas, or where two languages are near each other. A language that it does not know is passed over
if it is written in Latin letters, and named by its script otherwise.
"""

from __future__ import annotations

import re
from collections import Counter

LETTERS_READ = 4_000
LEAST_WORDS = 20
_LEAST_LETTERS = 20
_LEAST_SHARE = 0.06  # of the words: half of what ordinary prose has
_LEAST_DISTINCT = 3  # one small word may also be a name, or stand in a title
_AHEAD = 2.0  # times the second language

_SCRIPTS: dict[str, re.Pattern[str]] = {
    name: re.compile(f"[{letters}]")
    for name, letters in {
        "Japanese": "\u3040-\u30ff",
        "Chinese": "\u3400-\u9fff",
        "Korean": "\u1100-\u11ff\uac00-\ud7af",
        "Cyrillic script": "\u0400-\u052f",
        "Greek": "\u0370-\u03ff",
        "Arabic script": "\u0600-\u06ff\u0750-\u077f",
        "Hebrew": "\u0590-\u05ff",
        "Devanagari script": "\u0900-\u097f",
        "Bengali": "\u0980-\u09ff",
        "Tamil": "\u0b80-\u0bff",
        "Thai": "\u0e00-\u0e7f",
    }.items()
}
_LATIN = re.compile("[a-zA-Z\u00c0-\u024f\u1e00-\u1eff]")
_WORD = re.compile(r"[^\W\d_]+")

_SMALL_WORDS: dict[str, str] = {
    "English": "the of and to is that it for was with as on are this be have from or by not what how you which an "
    "he she his her they their there has had will at if one all were can your my me so but we do then than each "
    "per many much more",
    "German": "der die das und ist nicht ein eine einen zu den mit von für auf sich dem im wie auch wir oder als",
    "French": "le les des et est un une du dans que qui pour sur pas vous nous avec au plus sont cette être elle",
    "Spanish": "el los las y es una con del se por su al como más pero lo sus para qué esta son cuando muy están deben desde hay hasta también",
    "Portuguese": "o os as e é uma com do da não em dos das ao mais foi ou são você pelo isso seu sua ele",
    "Italian": "il gli di che è per una con non sono del della nel alla dei si le anche come più questo ed essi devono essere nella delle hanno",
    "Dutch": "het een van en dat niet zijn voor met aan door ook hij maar worden deze bij naar uit heeft wordt",
    "Swedish": "och att det är som inte på för jag av till har med den ett om eller från kan",
    "Danish or Norwegian": "og ikke jeg at er på til af av som det et den med for har ikke eller fra være mod bør sig hvor efter blev",
    "Finnish": "ja on ei se että hän oli joka mutta ovat myös tai kuin niin voi olla sekä ole heidän",
    "Polish": "i w na się nie jest że z do to jak oraz przez są dla ich który która od czy może",
    "Czech": "a je v se na že to jsou s pro které nebo ale být jako jeho by mají svou",
    "Turkish": "ve bir bu için ile olarak çok daha ne değil gibi olan kadar sonra ya da her ise",
    "Indonesian": "yang dan di dengan untuk tidak dari ini itu dalam pada adalah akan mereka atau dapat oleh",
    "Vietnamese": "và của là có không được trong cho một những người các với này để khi về đã",
    "Romanian": "și este nu în la cu pe care sunt mai din pentru sau că să o au ale fi",
    "Hungarian": "a az és hogy nem egy van is meg ez azt csak mint vagy kell minden",
}
_LISTS = {language: set(words.split()) for language, words in _SMALL_WORDS.items()}
_SHARED = {
    word for word, count in Counter(w for words in _LISTS.values() for w in words).items() if count > 1
}
# word → the one language that it speaks for; words of several languages, and single letters, which are names
# in code and formulas, speak for none
_SPEAKS_FOR = {w: language for language, words in _LISTS.items() for w in words - _SHARED if len(w) > 1}


_CODES = {
    "en": "English", "de": "German", "fr": "French", "es": "Spanish", "pt": "Portuguese", "it": "Italian", "nl": "Dutch",
    "sv": "Swedish", "fi": "Finnish", "pl": "Polish", "cs": "Czech", "tr": "Turkish", "id": "Indonesian",
    "vi": "Vietnamese", "ro": "Romanian", "hu": "Hungarian", "ja": "Japanese", "zh": "Chinese", "ko": "Korean",
    "el": "Greek", "he": "Hebrew", "bn": "Bengali", "ta": "Tamil", "th": "Thai",
}  # fmt: skip


def named_language(name: str) -> str:
    """A language as a file names it, by the name that `language_of` gives where it is a code such as `en` or `de-AT`."""
    return _CODES.get(name.strip().lower().replace("_", "-").partition("-")[0], name.strip())


def language_of(text: str, *, least_words: int = LEAST_WORDS) -> str:
    """The name of the language, or of the script where several languages write it; empty if it does not show.

    Args:
        least_words: about fewer words of Latin letters nothing is said.
    """
    script = _script_of(text) if not text.isascii() else "Latin"
    return _by_small_words(text, least_words) if script == "Latin" else script


def _script_of(text: str) -> str:
    """The script of most letters; empty if there are few letters or two scripts share the text."""
    counts = {name: len(letters.findall(text)) for name, letters in _SCRIPTS.items()}
    counts["Latin"] = len(_LATIN.findall(text))
    if counts["Japanese"] * 5 > counts["Chinese"]:  # Japanese writes Chinese characters between its own
        counts["Japanese"] += counts.pop("Chinese")
    name = max(counts, key=lambda script: counts[script])
    letters = sum(counts.values())
    if name != "Latin" and letters < _LEAST_LETTERS:
        return ""
    return name if counts[name] > 0.6 * letters else ""


def _by_small_words(text: str, least_words: int) -> str:
    words = _WORD.findall(text.lower())
    if len(words) < least_words:
        return ""
    found = [word for word in words if word in _SPEAKS_FOR]
    spoken_for = Counter(_SPEAKS_FOR[word] for word in found).most_common(2)
    if not spoken_for or spoken_for[0][1] < _LEAST_SHARE * len(words):
        return ""
    language, count = spoken_for[0]
    distinct = sum(_SPEAKS_FOR[word] == language for word in set(found))
    ahead = len(spoken_for) == 1 or count >= _AHEAD * spoken_for[1][1]
    return language if ahead and distinct >= _LEAST_DISTINCT else ""
