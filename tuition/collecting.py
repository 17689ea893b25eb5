"""Where the store meets the other rooms: prompts from files, answers from models, losses from runs.

`api` hands these on; the page and the command line call them through it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from tuition.collect import Store, batches, demonstrations, losses, prompts
from tuition.collect.accepted import read_accepted
from tuition.collect.texts import plain_text
from tuition.conversation import Message
from tuition.counting import counted
from tuition.data import find_sources
from tuition.data.asked import Asked, read_asked
from tuition.data.catalogue import finding
from tuition.data.language import LETTERS_READ, language_of, named_language
from tuition.data.storefiles import is_store_name, store_path
from tuition.errors import Finding, UserError

if TYPE_CHECKING:
    from tuition.evaluate.demonstrations import RowMarks

TYPED = "typed in the studio"
PROMPTS_PER_USER = 200  # as the founding paper took (InstructGPT, appendix A)
_USERS_NAMED = 5
_LEAST_WORDS = 4  # a question is short, and is shown with what it seems to be; it decides nothing


# --- prompts from files ---


@dataclass(frozen=True, slots=True)
class Imported:
    """What an import did.

    Attributes:
        read: prompts read; each is new, known, left out, or has a finding that says why it is none.
        beyond: user → prompts that were left out, because they had asked as many as one user may.
    """

    read: int
    new: int
    known: int
    findings: tuple[Finding, ...]
    beyond: Mapping[str, int] = field(default_factory=dict)

    @property
    def left_out(self) -> str:
        """A sentence about what was left out; empty where nothing was."""
        users = sorted(self.beyond.items(), key=lambda pair: -pair[1])
        named = ", ".join(f"{count:,} of '{user}'" for user, count in users[:_USERS_NAMED])
        others = f" and of {counted(len(users) - _USERS_NAMED, 'other')}" if len(users) > _USERS_NAMED else ""
        return f"left out, beyond what one user may ask: {named}{others}" if users else ""


def import_prompts(
    store: Store,
    data: Sequence[str],
    *,
    source: str,
    licence: str = "",
    consent: str = "",
    tags: Sequence[str] = (),
    overlap: int = 1,
    per_user: int = PROMPTS_PER_USER,
    by: int | None = None,
    called: str | None = None,
) -> Imported:
    """Take the prompts of files into the store: any shape that `check` reads, with or without answers.

    Args:
        source: what the store calls the place they came from; licence and consent hold for it.
        per_user: the most that one user of the source may have in the store; 0: any number.
        called: the name of the file in origins and findings, where `data` is a temporary copy of an upload.

    Raises:
        UserError: a file cannot be read at all.
    """
    findings: list[Finding] = []
    rows = 0

    def read() -> Iterator[prompts.NewPrompt]:
        nonlocal rows
        for asked in read_asked(find_sources(data).train):
            rows += not (isinstance(asked, Finding) and asked.origin.line == 0)
            new = asked if isinstance(asked, Finding) else new_prompt(asked)
            if isinstance(new, Finding):
                findings.append(
                    new if called is None else replace(new, origin=replace(new.origin, file=called))
                )
            else:
                yield (
                    new
                    if called is None
                    else replace(new, origin=f"{called}:{new.origin.rpartition(':')[2]}")
                )

    added = prompts.add(
        store, read(), source=source, licence=licence, consent=consent, tags=tags, overlap=overlap,
        per_user=per_user or None, by=by,
    )  # fmt: skip
    return Imported(rows, added.new, added.known, tuple(findings), added.beyond)


def add_typed_prompt(
    store: Store, text: str, *, system: str = "", tags: Sequence[str] = (), by: int
) -> prompts.Added:
    """One prompt that a person of the project typed, who agrees to its use by typing it.

    Raises:
        UserError: it is empty, or cannot be kept.
    """
    plain_text(text, "the prompt", empty=False)
    instruction = (Message("system", plain_text(system, "the instruction")),) if system.strip() else ()
    messages = (*instruction, Message("user", text))
    new = prompts.NewPrompt(messages, TYPED, tags=tuple(tags), language=_language_of(messages))
    return prompts.add(
        store, [new], source=TYPED, licence="the project's own", consent="typed for this project", by=by
    )


def add_test_prompt(store: Store, question: str, *, expected: str, by: int) -> None:
    """A question that tests who writes, with a good answer, which reviewers are shown beside what was written.

    Raises:
        UserError: a text is empty, or people answered the question already.
    """
    plain_text(expected, "the good answer", empty=False)
    with store.writing():
        asked = prompts.prompt(store, _typed(store, question, by))
        if asked.taken and not asked.gold:
            raise UserError(
                f"{counted(asked.taken, 'answer was', 'answers were')} begun or sent to this question, and a test's answers are not learned",
                where=f"prompt {asked.id}",
                next_step="Ask another question, or mark the prompt as a test on its own page",
            )
        prompts.change(store, asked.id, gold=True, expected=expected, by=by)


def add_test_pair(store: Store, question: str, *, better: str, worse: str, by: int) -> None:
    """A question and two answers, of which it is known which is better: it tests who judges, and is asked of no writer.

    Raises:
        UserError: a text is empty, or both answers are the same.
    """
    with store.writing():
        is_new = prompts.prompt_of(store, (Message("user", question),)) is None
        prompt_id = _typed(store, question, by)
        if is_new:
            prompts.change(store, prompt_id, paused=True, by=by)
        batches.add_test_pair(store, prompt_id, better=better, worse=worse, by=by)


def _typed(store: Store, question: str, by: int) -> int:
    """The prompt that asks this, and nothing before it; added where there is none."""
    add_typed_prompt(store, question, by=by)
    found = prompts.prompt_of(store, (Message("user", question),))
    assert found is not None, "it has just been added"
    return found


def new_prompt(asked: Asked) -> prompts.NewPrompt | Finding:
    """The prompt of a row, with what the row says about itself; a finding where nothing is asked."""
    origin, row = asked.conversation.origin, asked.row
    messages = asked.messages
    if asked.conversation.plain:
        messages = (Message("user", messages[0].content),)
    if messages[-1].role not in ("user", "tool") or not messages[-1].content.strip():
        return finding(
            "D001", origin, "nobody asks anything at its end", "End the prompt with a user's turn."
        )
    return prompts.NewPrompt(
        messages,
        str(origin),
        expected=asked.expected,
        tools=asked.conversation.tools,
        source_user=_text(row.get("user", row.get("user_id"))),
        group=asked.conversation.group,
        tags=_tags(row),
        language=named_language(_text(row.get("language", row.get("lang"))) or "")[:60]
        or _language_of(messages),
    )


def _language_of(messages: Sequence[Message]) -> str:
    """The language that what is asked seems to be in; empty where it does not show."""
    asked = "\n".join(message.content for message in messages if message.role == "user")
    return language_of(asked[:LETTERS_READ], least_words=_LEAST_WORDS)


def _text(value: object) -> str | None:
    return str(value)[:200] if isinstance(value, str | int) and value != "" else None


def _tags(row: Mapping[str, Any]) -> tuple[str, ...]:
    """`tags` or `tag`, a list or words between commas, and `category`."""
    listed = row.get("tags", row.get("tag"))
    named = listed if isinstance(listed, list) else str(listed).split(",") if isinstance(listed, str) else []
    words = [str(tag).strip() for tag in (*named, row.get("category") or "")]
    return tuple(dict.fromkeys(word[:60] for word in words if word))


# --- suggestions ---

SUGGEST_KEY_VARIABLE = "TUITION_SUGGEST_KEY"
_SUGGEST_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Service:
    """An OpenAI-compatible API that may suggest answers; its key stays in the environment."""

    url: str
    model: str


def suggestion_service(store: Store) -> Service | None:
    """The service that an admin named; None where none is."""
    stated = store.setting("suggestion service", None)
    return Service(**stated) if stated else None


def set_suggestion_service(store: Store, url: str, model: str, *, by: int) -> None:
    """Name a service that suggests answers, or none with an empty URL.

    Raises:
        UserError: the URL is none, or the model is not named.
    """
    url, model = url.strip(), model.strip()
    if url and (not url.startswith(("http://", "https://")) or not model):
        step = "Write the URL as https://host/v1 and name the model"
        raise UserError("a service has a URL and a model", next_step=step)
    store.set_setting("suggestion service", {"url": url, "model": model} if url else None, by=by)


def ask_service(service: Service, messages: Sequence[Message], *, max_new_tokens: int) -> str:
    """What the service answers to a prompt.

    Raises:
        UserError: it cannot be reached, or refuses.
    """
    from http.client import HTTPException

    from tuition.evaluate.completion import complete

    try:
        return complete(
            service.url,
            service.model,
            [{"role": message.role, "content": message.content} for message in messages],
            key_variable=SUGGEST_KEY_VARIABLE,
            seconds=_SUGGEST_SECONDS,
            max_tokens=max_new_tokens,
        )
    except (OSError, HTTPException) as error:
        raise UserError(
            f"the service gave no answer ({error})",
            where=service.url,
            next_step=f"Check its URL on the page Prompts, and the key in ${SUGGEST_KEY_VARIABLE}",
        ) from error


# --- losses of runs ---


def authors(store: Store, places: Iterable[tuple[str, int]]) -> dict[tuple[str, int], str]:
    """File and line of each row that came from this store → who wrote it; rows of other files are left out."""
    here = store.path.resolve()
    own = [
        (name, line) for name, line in places if is_store_name(name) and store_path(name)[0].resolve() == here
    ]
    names = demonstrations.authors_of(store, [line for _, line in own])
    return {place: names[place[1]] for place in own if place[1] in names}


def note_losses(rows: Iterable[RowMarks], run: str) -> int:
    """Keep the losses of rows that came from a store with their demonstrations; how many.

    Args:
        rows: as `evaluate` gives them for the demonstrations named with `rows`.
        run: the model that was trained.
    """
    by_store: dict[str, list[RowMarks]] = {}
    for row in rows:
        by_store.setdefault(row.file, []).append(row)
    return sum(_note_losses(name, found, run) for name, found in by_store.items() if is_store_name(name))


def _note_losses(name: str, rows: Sequence[RowMarks], run: str) -> int:
    path, at = store_path(name)
    with Store(path, must_exist=True) as store:
        revisions = {one.demonstration_id: one.provenance["revision"] for one in read_accepted(store, at=at)}
        return losses.note(
            store,
            [
                losses.Loss(row.line, revisions[row.line], run, row.before, row.after)
                for row in rows
                if row.line in revisions
            ],
        )
