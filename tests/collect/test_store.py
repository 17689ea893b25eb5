"""The file itself: transactions, events, migrations, backups, and files that are no stores."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tuition.collect import demonstrations as demos
from tuition.collect import drafts, overview, people, prompts, results
from tuition.collect import store as store_module
from tuition.collect.accepted import usable
from tuition.collect.schema import APPLICATION_ID, MIGRATIONS, migrate
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
        path = old_store(tmp_path / f"{version}.db", version)
        with Store(path) as store, store.reading() as db:  # which compares the tables
            assert db.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS)


def old_store(path: Path, version: int) -> Path:
    with closing(sqlite3.connect(path)) as db:
        if version:
            db.execute(f"PRAGMA application_id={APPLICATION_ID}")
        migrate(db, up_to=version)
        db.execute(f"PRAGMA user_version={version}")
        db.commit()
    return path


def test_what_people_did_in_a_store_of_the_first_version_is_all_there_in_the_second(tmp_path: Path) -> None:
    path = old_store(tmp_path / "team.db", 1)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(FIRST_VERSION)
    with Store(path) as store:
        assert prompts.find(store, words="old harb")[0].answered == 1
        assert demos.demonstration(store, 9).latest.turns == [{"role": "assistant", "content": "Hm."}]
        assert drafts.draft(store, 6, 1).turns == [{"role": "assistant", "content": "He"}]
        assert results.results(store, 3).rate.counts["a"] == 1
        assert [(share.name, share.accepted) for share in overview.by_source(store)] == [("web", 1)]
        assert [(share.name, share.accepted) for share in overview.by_tag(store)] == [("odd", 1)]
        assert usable(store).accepted == 1
        with store.reading() as db:
            assert db.execute("PRAGMA foreign_key_check").fetchone() is None
            assert db.execute("PRAGMA foreign_keys").fetchone()[0] == 1


def test_an_older_store_that_may_only_be_read_says_how_it_is_brought_up(tmp_path: Path) -> None:
    path = old_store(tmp_path / "team.db", 1)
    with pytest.raises(UserError, match=r"has version 1, .*tuition collect status"):
        Store(path, read_only=True)


def test_no_trigger_of_a_stranger_runs_when_an_older_store_is_migrated(tmp_path: Path) -> None:
    path = old_store(tmp_path / "team.db", 1)
    with closing(sqlite3.connect(path)) as db:
        db.executescript(FIRST_VERSION)
        db.execute("CREATE TRIGGER theirs AFTER INSERT ON tally BEGIN UPDATE person SET role = 'admin'; END")
    before = path.read_bytes()
    with pytest.raises(UserError, match="not those that tuition makes"):
        Store(path)
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone()[0] == 1
    assert len(path.read_bytes()) == len(before)


FIRST_VERSION = """
    INSERT INTO person(id, name, role, created_at) VALUES (1, 'Ada', 'admin', 0);
    INSERT INTO source(id, name) VALUES (4, 'web');
    INSERT INTO prompt(id, key, messages, opening, source_id, origin, created_at) VALUES
        (7, 'a', '[{"content": "The old harbour?", "role": "user"}]', 'The old harbour?', 4, 'x:1', 0),
        (8, 'b', '[{"content": "More?", "role": "user"}]', 'More?', 4, 'x:2', 0);
    INSERT INTO prompt_tag VALUES ('odd', 7);
    INSERT INTO assignment(id, prompt_id, person_id, slot, state, lease_until, created_at) VALUES
        (5, 7, 1, 0, 'submitted', 0, 0), (6, 8, 1, 0, 'expired', 0, 0);
    INSERT INTO draft VALUES (6, '[{"role": "assistant", "content": "He"}]', 1, 0);
    INSERT INTO event(id, at, person_id, verb, target, body) VALUES (1, 0, 1, 'submitted', 'demonstration 9', '{}');
    INSERT INTO demonstration(id, prompt_id, person_id, assignment_id, status, rev, created_at, changed_at)
        VALUES (9, 7, 1, 5, 'accepted', 1, 0, 0);
    INSERT INTO revision VALUES (9, 1, 1, '[{"role": "assistant", "content": "Hm."}]', 0, 1, NULL, NULL, 'k', 0, 1);
    INSERT INTO batch(id, name, model_a, model_b, sampling, overlap, created_at, pairs) VALUES (3, '', 'x', 'y', '{}', 1, 0, 1);
    INSERT INTO pair(id, batch_id, prompt_id, answer_a, answer_b) VALUES (2, 3, 7, 'p', 'q');
    INSERT INTO judgement(id, pair_id, person_id, slot, state, left, lease_until, created_at, verdict)
        VALUES (1, 2, 1, 0, 'judged', 'a', 0, 0, 'a');
"""


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


def test_a_write_that_meets_a_text_that_is_none_is_refused_with_a_sentence(store: Store) -> None:
    """Python's own errors carry no code of SQLite's."""
    with pytest.raises(UserError, match=r"could not be written.*Nothing was stored"), store.writing() as db:
        db.execute("SELECT CAST(x'ff' AS TEXT)").fetchone()


def test_writers_do_not_wait_one_after_the_other_for_a_program_that_holds_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.5)
    ticks = iter([0.0, 0.2, 0.0, 9.0])
    with (
        Store(tmp_path / "team.db") as store,
        closing(sqlite3.connect(store.path, isolation_level=None)) as other,
    ):
        monkeypatch.setattr(store_module, "monotonic", lambda: next(ticks))
        for left in (300, 100):  # its turn came after 0.2 seconds, and after nine
            with store.writing() as db:
                assert db.execute("PRAGMA busy_timeout").fetchone()[0] == left
        monkeypatch.undo()
        monkeypatch.setattr(store_module, "BUSY_SECONDS", 0.01)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UserError, match=r"database is locked.*Nothing was stored: another program holds"):
            store.set_setting("a", 1, by=None)
        other.execute("ROLLBACK")
        store.set_setting("a", 2, by=None)
        assert store.setting("a", 0) == 2
