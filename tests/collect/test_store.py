"""The file itself: transactions, events, migrations, backups, and files that are no stores."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tuition.collect import people
from tuition.collect.schema import MIGRATIONS
from tuition.collect.store import Store
from tuition.errors import UserError


def test_what_raises_inside_a_transaction_never_happened(store: Store) -> None:
    with pytest.raises(RuntimeError), store.writing():
        people.add_person(store, "Ada", "admin", by=None)
        raise RuntimeError
    assert people.people(store) == []


def test_events_can_neither_be_changed_nor_removed(store: Store, admin: people.Person) -> None:
    for statement in ("UPDATE event SET verb = 'x'", "DELETE FROM event"):
        with pytest.raises(sqlite3.IntegrityError, match="events are never"), store.writing() as db:
            db.execute(statement)
    with store.reading() as db:
        assert db.execute("SELECT verb, target FROM event").fetchone()[:] == ("added", f"person {admin.id}")


def test_a_commit_is_synced_to_the_disk(store: Store) -> None:
    with store.reading() as db:
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        assert db.execute("PRAGMA synchronous").fetchone()[0] == 2


def test_a_store_opens_again_with_what_was_written(tmp_path: Path) -> None:
    with Store(tmp_path / "team.db") as first:
        people.add_person(first, "Ada", "admin", by=None)
    with Store(tmp_path / "team.db", must_exist=True) as second:
        assert [p.name for p in people.people(second)] == ["Ada"]


def test_every_older_version_is_migrated_to_the_tables_of_a_new_store(tmp_path: Path) -> None:
    for version in range(len(MIGRATIONS)):
        path = tmp_path / f"{version}.db"
        with closing(sqlite3.connect(path)) as db:
            for statement in (s for migration in MIGRATIONS[:version] for s in migration):
                db.execute(statement)
            db.execute(f"PRAGMA user_version={version}")
        with Store(path) as store, store.reading() as db:  # which compares the tables
            assert db.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)


def test_a_store_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "team.db"
    Store(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version=999")
    with pytest.raises(UserError, match="version 999"):
        Store(path)


def test_another_programs_file_is_refused_and_unchanged(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE theirs(x)")
    before = path.read_bytes()
    with pytest.raises(UserError, match="no store of tuition"):
        Store(path)
    with closing(sqlite3.connect(path)) as db:
        assert [row[0] for row in db.execute("SELECT name FROM sqlite_schema")] == ["theirs"]
    assert before[:16] == path.read_bytes()[:16]


def test_a_text_file_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("my notes")
    with pytest.raises(UserError, match="no SQLite file"):
        Store(path)
    assert path.read_text() == "my notes"


def test_a_store_with_a_strangers_trigger_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "team.db"
    Store(path).close()
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TRIGGER evil AFTER INSERT ON person BEGIN DELETE FROM draft; END")
    with pytest.raises(UserError, match="not those that tuition makes"):
        Store(path)


def test_a_backup_taken_while_others_write_is_complete_and_consistent(store: Store, tmp_path: Path) -> None:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            people.add_person(store, f"P{number}", "writer", by=None)
            number += 1

    thread = threading.Thread(target=write)
    thread.start()
    for turn in range(3):
        store.backup(tmp_path / f"backup-{turn}.db")
    stop.set()
    thread.join()
    for turn in range(3):
        with Store(tmp_path / f"backup-{turn}.db", must_exist=True) as copy, copy.reading() as db:
            assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
            (events,) = db.execute("SELECT count(*) FROM event WHERE verb = 'added'").fetchone()
            assert events == len(people.people(copy))  # a person and its event come together or not at all
    assert not list(tmp_path.glob(".*.tmp"))


def test_a_backup_never_replaces_the_store_itself(store: Store) -> None:
    with pytest.raises(UserError, match="the store itself"):
        store.backup(store.path)


def test_a_store_opened_for_reading_refuses_to_write(store: Store) -> None:
    with Store(store.path, read_only=True) as reader, pytest.raises(UserError, match="readonly"):
        people.add_person(reader, "Ada", "admin", by=None)


def test_a_write_inside_a_reading_is_a_defect_that_is_said(store: Store) -> None:
    with store.reading(), pytest.raises(RuntimeError, match="inside a reading"), store.writing():
        pass
    people.add_person(store, "Ada", "admin", by=None)  # and the next write is one again
    assert len(people.people(store)) == 1


def test_a_store_and_its_backup_are_their_owners_alone(store: Store, tmp_path: Path) -> None:
    store.backup(tmp_path / "copy.db")
    assert {
        oct(path.stat().st_mode & 0o077) for path in tmp_path.glob("*.db*") if "-lock" not in path.name
    } == {"0o0"}


def test_a_store_where_nothing_may_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be opened"):
        Store(tmp_path / "no such folder" / "team.db")
