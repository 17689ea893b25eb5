"""Invites, passwords, sessions and roles."""

from __future__ import annotations

import pytest

from tests.collect.conftest import Clock
from tuition.collect import (
    ConflictError,
    NotAllowedError,
    NotFoundError,
    Store,
    TooManyError,
    people,
    sessions,
)
from tuition.errors import UserError

PASSWORD = "correct horse"


@pytest.fixture
def member(store: Store, admin: people.Person) -> people.Person:
    return people.accept_invite(store, people.invite(store, "writer", by=admin.id), "Wim", PASSWORD)


def test_an_invite_works_once(store: Store, admin: people.Person) -> None:
    token = people.invite(store, "reviewer", by=admin.id)
    assert people.accept_invite(store, token, "Rita", PASSWORD).role == "reviewer"
    with pytest.raises(NotFoundError):
        people.accept_invite(store, token, "Rolf", PASSWORD)
    assert [p.name for p in people.people(store)] == ["Ada", "Rita"]


def test_an_invite_ends_after_a_week_and_when_it_is_revoked(store: Store, clock: Clock) -> None:
    old, revoked = people.invite(store, "writer", by=None), people.invite(store, "evaluator", by=None)
    key = next(i.key for i in people.invites(store) if i.role == "evaluator")
    people.revoke_invite(store, key, by=None)
    assert people.invited_role(store, old) == "writer"
    assert people.invited_role(store, revoked) is None
    clock.seconds += 8 * people.DAY
    assert people.invited_role(store, old) is None


def test_a_taken_name_leaves_the_invite_usable(store: Store, admin: people.Person) -> None:
    token = people.invite(store, "writer", by=admin.id)
    with pytest.raises(ConflictError):
        people.accept_invite(store, token, "ada", PASSWORD)
    assert people.accept_invite(store, token, "Anna", PASSWORD).name == "Anna"


def test_a_password_opens_a_session_and_a_wrong_one_does_not(store: Store, member: people.Person) -> None:
    token = sessions.sign_in(store, " wim ", PASSWORD, address="::1")
    assert sessions.person_of_session(store, token) == member
    with pytest.raises(NotAllowedError):
        sessions.sign_in(store, "Wim", "wrong horse", address="::1")
    with pytest.raises(NotAllowedError):
        sessions.sign_in(store, "Nobody", PASSWORD, address="::1")


def test_no_token_and_no_password_stands_in_the_file(store: Store, member: people.Person) -> None:
    session = sessions.sign_in(store, "Wim", PASSWORD, address="::1")
    secrets = [
        session,
        people.invite(store, "writer", by=None),
        sessions.make_link(store, member.id),
        PASSWORD,
    ]
    content = b"".join(path.read_bytes() for path in store.path.parent.glob("team.db*"))
    assert not [secret for secret in secrets if secret.encode() in content]
    assert b"$argon2id$" in content


def test_a_disabled_persons_session_ends_at_once(
    store: Store, admin: people.Person, member: people.Person
) -> None:
    token = sessions.sign_in(store, "Wim", PASSWORD, address="::1")
    people.set_disabled(store, member.id, True, by=admin.id)
    assert sessions.person_of_session(store, token) is None
    with pytest.raises(NotAllowedError):
        sessions.sign_in(store, "Wim", PASSWORD, address="::1")
    people.set_disabled(store, member.id, False, by=admin.id)
    assert sessions.person_of_session(store, token) is None  # signing in anew is needed
    assert sessions.sign_in(store, "Wim", PASSWORD, address="::1")


def test_a_new_password_and_signing_out_end_sessions(store: Store, member: people.Person) -> None:
    here, there = (sessions.sign_in(store, "Wim", PASSWORD, address="::1") for _ in range(2))
    sessions.sign_out(store, here)
    assert sessions.person_of_session(store, here) is None
    assert sessions.person_of_session(store, there) is not None
    people.set_password(store, member.id, "battery staple", by=member.id)
    assert sessions.person_of_session(store, there) is None


def test_a_session_ends_after_its_time(store: Store, member: people.Person, clock: Clock) -> None:
    token = sessions.sign_in(store, "Wim", PASSWORD, address="::1")
    clock.seconds += sessions.SESSION_SECONDS + 1
    assert sessions.person_of_session(store, token) is None


def test_failed_tries_make_wait_longer_and_longer(store: Store, member: people.Person, clock: Clock) -> None:
    waits = []
    for _ in range(8):
        with pytest.raises(NotAllowedError):
            sessions.sign_in(store, "Wim", "wrong horse", address="::1")
        with pytest.raises((NotAllowedError, TooManyError)) as refusal:
            sessions.sign_in(store, "Wim", "wrong horse", address="::1")
        waits.append(getattr(refusal.value, "wait_seconds", 0.0))
        clock.seconds += waits[-1]
    assert waits[0] == 0 and waits[-1] > 30
    with pytest.raises(TooManyError):  # and the right password is not heard meanwhile either
        clock.seconds -= 1
        sessions.sign_in(store, "Wim", PASSWORD, address="::1")
    clock.seconds += 2
    assert sessions.sign_in(store, "Wim", PASSWORD, address="::1")


def test_a_link_signs_in_once_within_ten_minutes(store: Store, clock: Clock) -> None:
    owner = people.local_admin(store)
    link = sessions.make_link(store, owner.id)
    session = sessions.use_link(store, link)
    assert session is not None and sessions.person_of_session(store, session) == owner
    assert sessions.use_link(store, link) is None
    late = sessions.make_link(store, owner.id)
    clock.seconds += sessions.LINK_SECONDS + 1
    assert sessions.use_link(store, late) is None


def test_the_local_admin_is_made_once_and_has_no_password(store: Store) -> None:
    assert people.local_admin(store) == people.local_admin(store)
    assert not people.an_admin_has_a_password(store)
    people.set_password(store, people.local_admin(store).id, PASSWORD, by=None)
    assert people.an_admin_has_a_password(store)


def test_the_local_admin_takes_a_name_that_nobody_has(store: Store) -> None:
    people.add_person(store, "Admin1", "writer", by=None)
    assert people.local_admin(store).name == "admin"


def test_the_only_admin_can_neither_leave_nor_be_shut_out(store: Store, admin: people.Person) -> None:
    with pytest.raises(ConflictError):
        people.set_role(store, admin.id, "writer", by=admin.id)
    with pytest.raises(ConflictError):
        people.set_disabled(store, admin.id, True, by=admin.id)


def test_an_evaluator_may_judge_and_may_not_write(store: Store, evaluator: people.Person) -> None:
    assert evaluator.may("judge") and not evaluator.may("write") and not evaluator.may("review")
    with pytest.raises(NotAllowedError):
        people.require(store, evaluator.id, "write")


@pytest.mark.parametrize(
    ("name", "role", "password"),
    [("", "writer", PASSWORD), ("A", "owner", PASSWORD), ("A", "writer", "short")],
)
def test_people_without_name_role_or_long_password_are_refused(
    store: Store, name: str, role: str, password: str
) -> None:
    with pytest.raises(UserError):
        people.add_person(store, name, role, password=password, by=None)
    assert people.people(store) == []
