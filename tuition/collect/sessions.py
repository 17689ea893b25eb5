"""Signing in: passwords that wait longer each time, sessions that can be ended, links that work once."""

from __future__ import annotations

import secrets

from tuition.collect.passwords import decoy, fits, token_sha
from tuition.collect.people import DAY, Person, person_of_row
from tuition.collect.refusals import NotAllowedError, TooManyError
from tuition.collect.store import Store

SESSION_SECONDS = 30 * DAY
LINK_SECONDS = 600.0
_FREE_FAILURES = 5
_LONGEST_WAIT_SECONDS = 900.0


def sign_in(store: Store, name: str, password: str, *, address: str) -> str:
    """A session token for a name and its password.

    Args:
        address: where the request came from; tries are counted for it and for the name.

    Raises:
        TooManyError: too many failures; says how long to wait.
        NotAllowedError: name and password do not fit, or the person is disabled; which of them is not said.
    """
    keys = (f"name {name.strip().lower()[:80]}", f"address {address}")
    _refuse_while_throttled(store, keys)
    with store.reading() as db:
        row = db.execute("SELECT * FROM person WHERE name = ?", (name.strip(),)).fetchone()
    hashed = row["password_hash"] if row is not None and row["disabled_at"] is None else None
    # an unknown name takes as long as a known one, so that time tells nobody which names there are
    known = fits(hashed or decoy(), password) and hashed is not None
    if not known:
        _count_failure(store, keys)
        raise NotAllowedError("name and password do not fit", next_step="Try again, or ask an admin")
    with store.writing() as db:
        db.execute("DELETE FROM failed_login WHERE key = ?", (keys[0],))
        return open_session(store, row["id"])


def _refuse_while_throttled(store: Store, keys: tuple[str, ...]) -> None:
    with store.reading() as db:
        rows = [db.execute("SELECT * FROM failed_login WHERE key = ?", (key,)).fetchone() for key in keys]
    waits = [row["last_at"] + _wait_after(row["failures"]) - store.now() for row in rows if row is not None]
    if waits and max(waits) > 0:
        refusal = TooManyError("too many failed tries", next_step=f"Try again in {max(waits):.0f} seconds")
        refusal.wait_seconds = max(waits)
        raise refusal


def _wait_after(failures: int) -> float:
    """Seconds: 0 for the first few, then doubling from two to a quarter of an hour."""
    if failures < _FREE_FAILURES:
        return 0.0
    return min(_LONGEST_WAIT_SECONDS, 2.0 ** min(20, failures - _FREE_FAILURES + 1))


def _count_failure(store: Store, keys: tuple[str, ...]) -> None:
    now = store.now()
    with store.writing() as db:
        db.execute("DELETE FROM failed_login WHERE last_at < ?", (now - DAY,))
        for key in keys:
            db.execute(
                """INSERT INTO failed_login VALUES (?, 1, ?)
                ON CONFLICT(key) DO UPDATE SET failures = failures + 1, last_at = excluded.last_at""",
                (key, now),
            )


def open_session(store: Store, person_id: int) -> str:
    """A new session of a person who has shown who they are; its token."""
    token, now = secrets.token_urlsafe(32), store.now()
    with store.writing() as db:
        db.execute("DELETE FROM session WHERE expires_at < ?", (now,))
        row = (token_sha(token), person_id, now, now + SESSION_SECONDS)
        db.execute("INSERT INTO session VALUES (?,?,?,?)", row)
        store.note("signed in", f"person {person_id}", by=person_id)
    return token


def person_of_session(store: Store, token: str) -> Person | None:
    """Who a session is; None where it is unknown, has ended, or the person is disabled."""
    query = """SELECT p.* FROM session s JOIN person p ON p.id = s.person_id
        WHERE s.token_sha = ? AND s.expires_at > ? AND p.disabled_at IS NULL"""
    with store.reading() as db:
        row = db.execute(query, (token_sha(token), store.now())).fetchone()
    return None if row is None else person_of_row(row)


def sign_out(store: Store, token: str) -> None:
    """End one session."""
    with store.writing() as db:
        db.execute("DELETE FROM session WHERE token_sha = ?", (token_sha(token),))


def make_link(store: Store, person_id: int) -> str:
    """A token that signs a person in once, within ten minutes: the address that the program prints."""
    token = secrets.token_urlsafe(32)
    with store.writing() as db:
        db.execute(
            "INSERT INTO link VALUES (?,?,?)", (token_sha(token), person_id, store.now() + LINK_SECONDS)
        )
    return token


def use_link(store: Store, token: str) -> str | None:
    """A session token for a link's token; None where it is unknown, used or expired."""
    with store.writing() as db:
        row = db.execute(
            """DELETE FROM link WHERE token_sha = ? AND expires_at > ?
            AND person_id IN (SELECT id FROM person WHERE disabled_at IS NULL) RETURNING person_id""",
            (token_sha(token), store.now()),
        ).fetchone()
        return None if row is None else open_session(store, row["person_id"])
