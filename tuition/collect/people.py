"""People: who there is and who may do what; how the server knows them again stands in `sessions`.

Passwords are kept as argon2id hashes; tokens of sessions, invites and links only as SHA-256, so that a copied
store opens no door. There is no open sign-up: a person comes through an invite, which works once.
"""

from __future__ import annotations

import secrets
import sqlite3
from dataclasses import dataclass

from tuition.collect.passwords import SHORTEST_PASSWORD as SHORTEST_PASSWORD
from tuition.collect.passwords import hash_password, token_sha
from tuition.collect.refusals import ConflictError, NotAllowedError, NotFoundError
from tuition.collect.store import Store
from tuition.collect.texts import plain_text
from tuition.errors import UserError

# An evaluator may not write: who judges a model has not taught it.
RIGHTS: dict[str, frozenset[str]] = {
    "admin": frozenset({"write", "review", "judge", "manage"}),
    "writer": frozenset({"write"}),
    "reviewer": frozenset({"write", "review", "judge"}),
    "evaluator": frozenset({"judge"}),
}
DAY = 86_400.0
INVITE_SECONDS = 7 * DAY


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who may sign in.

    Attributes:
        role: a key of `RIGHTS`.
        has_password: False for the person at the machine itself, who comes in by a link.
    """

    id: int
    name: str
    role: str
    disabled: bool
    has_password: bool
    created_at: float

    def may(self, right: str) -> bool:
        """Whether the role allows to `write`, `review`, `judge` or `manage`."""
        return not self.disabled and right in RIGHTS[self.role]


@dataclass(frozen=True, slots=True)
class Invite:
    """An invitation. `key` names it in the page; it is not the token, which only the invited person gets."""

    key: str
    role: str
    created_at: float
    expires_at: float
    used_by: str | None


# --- people ---


def people(store: Store) -> list[Person]:
    """Everybody, in the order of coming."""
    with store.reading() as db:
        return [person_of_row(row) for row in db.execute("SELECT * FROM person ORDER BY id")]


def person(store: Store, person_id: int) -> Person:
    """One person.

    Raises:
        NotFoundError: there is none of that id.
    """
    with store.reading() as db:
        row = db.execute("SELECT * FROM person WHERE id = ?", (person_id,)).fetchone()
    if row is None:
        raise NotFoundError(f"there is no person {person_id}", next_step="See the list of people")
    return person_of_row(row)


def require(store: Store, person_id: int, right: str) -> Person:
    """The person, if they may do that.

    Raises:
        NotAllowedError: the role does not allow it, or the person is disabled.
    """
    found = person(store, person_id)
    if not found.may(right):
        raise NotAllowedError(
            f"{found.name} ({found.role}) may not {right}", next_step="Ask an admin for another role"
        )
    return found


def add_person(store: Store, name: str, role: str, *, password: str | None = None, by: int | None) -> Person:
    """Add a person.

    Raises:
        ConflictError: the name is taken.
        UserError: the name is empty, the role unknown, or the password too short.
    """
    name = plain_text(name, "the name", longest=80, empty=False).strip()
    _check_role(role)
    hashed = None if password is None else hash_password(password)
    with store.writing() as db:
        try:
            row = (name, hashed, role, store.now())
            cursor = db.execute(
                "INSERT INTO person(name, password_hash, role, created_at) VALUES (?,?,?,?)", row
            )
        except sqlite3.IntegrityError:
            raise ConflictError(f"the name {name} is taken", next_step="Choose another") from None
        store.note("added", f"person {cursor.lastrowid}", by=by, name=name, role=role)
        return person(store, int(cursor.lastrowid or 0))


def local_admin(store: Store) -> Person:
    """The first admin; made, without a password, where there is none: whoever starts the program owns the file."""
    with store.writing() as db:
        row = db.execute(
            "SELECT * FROM person WHERE role = 'admin' AND disabled_at IS NULL ORDER BY id LIMIT 1"
        ).fetchone()
        if row is not None:
            return person_of_row(row)
        taken = {row[0].lower() for row in db.execute("SELECT name FROM person WHERE name LIKE 'admin%'")}
        names = ["admin", *(f"admin{number}" for number in range(1, len(taken) + 1))]
        free = next(name for name in names if name not in taken)
        return add_person(store, free, "admin", by=None)


def an_admin_has_a_password(store: Store) -> bool:
    """Whether the page may be opened to other machines."""
    return _has_a_password(store, "role = 'admin'")


def somebody_has_a_password(store: Store) -> bool:
    """Whether there is anybody who can sign in by name."""
    return _has_a_password(store, "TRUE")


def _has_a_password(store: Store, who: str) -> bool:
    with store.reading() as db:
        found = db.execute(
            f"SELECT 1 FROM person WHERE {who} AND disabled_at IS NULL AND password_hash IS NOT NULL"
        ).fetchone()
    return found is not None


def set_password(store: Store, person_id: int, password: str, *, by: int | None) -> None:
    """Set a password; every session of the person ends.

    Raises:
        UserError: it is too short.
    """
    hashed = hash_password(password)
    with store.writing() as db:
        db.execute("UPDATE person SET password_hash = ? WHERE id = ?", (hashed, person_id))
        end_sessions(store, person_id)
        store.note("set the password of", f"person {person_id}", by=by)


def set_name(store: Store, person_id: int, name: str, *, by: int | None) -> None:
    """Rename a person.

    Raises:
        ConflictError: the name is taken.
    """
    name = plain_text(name, "the name", longest=80, empty=False).strip()
    with store.writing() as db:
        try:
            db.execute("UPDATE person SET name = ? WHERE id = ?", (name, person_id))
        except sqlite3.IntegrityError:
            raise ConflictError(f"the name {name} is taken", next_step="Choose another") from None
        store.note("renamed", f"person {person_id}", by=by, name=name)


def set_role(store: Store, person_id: int, role: str, *, by: int | None) -> None:
    """Give a person another role.

    Raises:
        ConflictError: nobody would be left to manage.
    """
    _check_role(role)
    with store.writing() as db:
        if role != "admin":
            _refuse_last_admin(db, person_id)
        db.execute("UPDATE person SET role = ? WHERE id = ?", (role, person_id))
        store.note("gave a role to", f"person {person_id}", by=by, role=role)


def set_disabled(store: Store, person_id: int, disabled: bool, *, by: int | None) -> None:
    """Shut a person out, or let them in again. Sessions end with the next request; what they wrote stays.

    Raises:
        ConflictError: nobody would be left to manage.
    """
    with store.writing() as db:
        if disabled:
            _refuse_last_admin(db, person_id)
            end_sessions(store, person_id)
        at = store.now() if disabled else None
        db.execute("UPDATE person SET disabled_at = ? WHERE id = ?", (at, person_id))
        store.note("disabled" if disabled else "enabled", f"person {person_id}", by=by)


def _refuse_last_admin(db: sqlite3.Connection, person_id: int) -> None:
    (others,) = db.execute(
        "SELECT count(*) FROM person WHERE role = 'admin' AND disabled_at IS NULL AND id <> ?", (person_id,)
    ).fetchone()
    if not others:
        raise ConflictError("this is the only admin", next_step="Make another person admin first")


# --- invites ---


def invite(store: Store, role: str, *, by: int | None) -> str:
    """A token that lets one person in, once, within a week."""
    _check_role(role)
    token, now = secrets.token_urlsafe(32), store.now()
    with store.writing() as db:
        row = (token_sha(token), role, by, now, now + INVITE_SECONDS)
        db.execute(
            "INSERT INTO invite(token_sha, role, created_by, created_at, expires_at) VALUES (?,?,?,?,?)", row
        )
        store.note("invited", f"role {role}", by=by)
    return token


def invites(store: Store) -> list[Invite]:
    """All invites, the newest first."""
    query = """SELECT i.*, p.name AS used_name FROM invite i LEFT JOIN person p ON p.id = i.used_by
        ORDER BY i.created_at DESC, i.token_sha"""
    with store.reading() as db:
        return [
            Invite(row["token_sha"][:16], row["role"], row["created_at"], row["expires_at"], row["used_name"])
            for row in db.execute(query)
        ]


def revoke_invite(store: Store, key: str, *, by: int | None) -> None:
    """End an invite that nobody used yet, by its `key`."""
    with store.writing() as db:
        db.execute(
            "UPDATE invite SET expires_at = 0 WHERE substr(token_sha, 1, 16) = ? AND used_by IS NULL", (key,)
        )
        store.note("revoked", f"invite {key}", by=by)


def invited_role(store: Store, token: str) -> str | None:
    """The role that an invite gives; None where it is unknown, used or expired."""
    with store.reading() as db:
        row = db.execute(
            "SELECT role FROM invite WHERE token_sha = ? AND used_by IS NULL AND expires_at > ?",
            (token_sha(token), store.now()),
        ).fetchone()
    return None if row is None else str(row["role"])


def accept_invite(store: Store, token: str, name: str, password: str) -> Person:
    """The person who comes in by an invite; it works once, however many try at the same time.

    Raises:
        NotFoundError: the invite is unknown, used or expired.
        ConflictError: the name is taken; the invite still works.
    """
    with store.writing() as db:
        role = invited_role(store, token)
        if role is None:
            raise NotFoundError("this invite is used, expired or unknown", next_step="Ask for a new one")
        comer = add_person(store, name, role, password=password, by=None)
        db.execute(
            "UPDATE invite SET used_by = ?, used_at = ? WHERE token_sha = ?",
            (comer.id, store.now(), token_sha(token)),
        )
    return comer


def end_sessions(store: Store, person_id: int) -> None:
    """End all sessions and links of a person."""
    with store.writing() as db:
        db.execute("DELETE FROM session WHERE person_id = ?", (person_id,))
        db.execute("DELETE FROM link WHERE person_id = ?", (person_id,))


# --- rows ---


def _check_role(role: str) -> None:
    if role not in RIGHTS:
        raise UserError(f"unknown role '{role}'", next_step=f"Choose one of: {', '.join(RIGHTS)}")


def person_of_row(row: sqlite3.Row) -> Person:
    """The person in a row of the table; for `sessions` too."""
    return Person(
        id=row["id"],
        name=row["name"],
        role=row["role"],
        disabled=row["disabled_at"] is not None,
        has_password=row["password_hash"] is not None,
        created_at=row["created_at"],
    )
