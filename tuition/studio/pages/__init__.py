"""The pages, in the order of the navigation. A new page is one row here, one module and one template."""

from __future__ import annotations

from dataclasses import dataclass

from tuition import api

ADMIN = frozenset({"admin"})
EVERYBODY = frozenset({"admin", "writer", "reviewer", "evaluator"})
WRITERS, REVIEWERS, JUDGES = (
    frozenset(role for role, rights in api.people.RIGHTS.items() if right in rights)
    for right in ("write", "review", "judge")
)


@dataclass(frozen=True, slots=True)
class Page:
    """One room of the studio.

    Attributes:
        path: where it lies; everything its router answers lies below.
        label: its name in the navigation.
        module: in this package; it holds `router`.
        group: the heading it stands under.
        roles: who may enter; everybody else gets 403, whatever they ask for below `path`.
        uploads: paths below that take files of prompts, and so longer bodies.
    """

    path: str
    label: str
    module: str
    group: str
    roles: frozenset[str] = ADMIN
    uploads: tuple[str, ...] = ()


PAGES: tuple[Page, ...] = (
    Page("/write", "Write", "write", "Collect", WRITERS),
    Page("/review", "Review", "review", "Collect", REVIEWERS),
    Page("/judge", "Judge", "judge", "Collect", JUDGES),
    Page("/prompts", "Prompts", "prompts", "Collect", uploads=("/prompts/import",)),
    Page("/tests", "Tests", "qualification", "Collect"),
    Page("/overview", "Overview", "overview", "Collect"),
    Page("/runs", "Runs", "runs", "Train"),
    Page("/start", "Start a run", "start", "Train"),
    Page("/chat", "Chat", "chat", "Train"),
    Page("/people", "People", "people", "Team"),
    Page("/account", "You", "account", "Team", EVERYBODY),
)
