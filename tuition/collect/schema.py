"""The tables, as numbered migrations: each takes a store from the version that is its place to the next.

A migration that was released is never edited; a change is a new one at the end. `PRAGMA user_version` is the
number of migrations that a file has been through.
"""

from __future__ import annotations

import sqlite3

from tuition.collect.words import words_of

APPLICATION_ID = 0x74756974  # "tuit": tells our files from other programs' SQLite files

_PEOPLE = (
    """CREATE TABLE person(
        id INTEGER PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE UNIQUE, password_hash TEXT,
        role TEXT NOT NULL CHECK (role IN ('admin', 'writer', 'reviewer', 'evaluator')),
        created_at REAL NOT NULL, disabled_at REAL)""",
    """CREATE TABLE invite(
        token_sha TEXT PRIMARY KEY, role TEXT NOT NULL, created_by INTEGER REFERENCES person(id),
        created_at REAL NOT NULL, expires_at REAL NOT NULL, used_by INTEGER REFERENCES person(id), used_at REAL)""",
    """CREATE TABLE session(
        token_sha TEXT PRIMARY KEY, person_id INTEGER NOT NULL REFERENCES person(id),
        created_at REAL NOT NULL, expires_at REAL NOT NULL)""",
    "CREATE INDEX session_of ON session(person_id)",
    """CREATE TABLE link(
        token_sha TEXT PRIMARY KEY, person_id INTEGER NOT NULL REFERENCES person(id), expires_at REAL NOT NULL)""",
    """CREATE TABLE failed_login(
        key TEXT PRIMARY KEY, failures INTEGER NOT NULL, last_at REAL NOT NULL)""",
)

_EVENTS = (
    """CREATE TABLE event(
        id INTEGER PRIMARY KEY AUTOINCREMENT, at REAL NOT NULL, person_id INTEGER REFERENCES person(id),
        verb TEXT NOT NULL, target TEXT NOT NULL, body TEXT NOT NULL)""",
    """CREATE TRIGGER event_is_never_changed BEFORE UPDATE ON event
        BEGIN SELECT RAISE(ABORT, 'events are never changed'); END""",
    """CREATE TRIGGER event_is_never_removed BEFORE DELETE ON event
        BEGIN SELECT RAISE(ABORT, 'events are never removed'); END""",
    """CREATE INDEX event_of_demonstration ON event(target, id)
        WHERE verb IN ('submitted', 'accepted', 'returned')""",
    "CREATE TABLE setting(key TEXT PRIMARY KEY, value TEXT NOT NULL)",
)

_PROMPTS = (
    """CREATE TABLE guideline(
        version INTEGER PRIMARY KEY, text TEXT NOT NULL, person_id INTEGER REFERENCES person(id),
        created_at REAL NOT NULL)""",
    """CREATE TABLE source(
        id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, licence TEXT NOT NULL DEFAULT '',
        consent TEXT NOT NULL DEFAULT '')""",
    """CREATE TABLE prompt(
        id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, messages TEXT NOT NULL, tools TEXT NOT NULL DEFAULT '[]',
        opening TEXT NOT NULL, source_id INTEGER NOT NULL REFERENCES source(id), source_user TEXT, origin TEXT NOT NULL,
        group_id TEXT, expected TEXT NOT NULL DEFAULT '', priority REAL NOT NULL DEFAULT 0,
        overlap INTEGER NOT NULL DEFAULT 1 CHECK (overlap BETWEEN 1 AND 100), taken INTEGER NOT NULL DEFAULT 0,
        gold INTEGER NOT NULL DEFAULT 0, paused INTEGER NOT NULL DEFAULT 0, created_at REAL NOT NULL)""",
    """CREATE INDEX prompt_open ON prompt(gold, priority DESC, id) WHERE taken < overlap AND paused = 0""",
    "CREATE INDEX prompt_source ON prompt(source_id)",
    "CREATE INDEX prompt_opening ON prompt(opening)",
    "CREATE TABLE prompt_tag(tag TEXT NOT NULL, prompt_id INTEGER NOT NULL REFERENCES prompt(id), PRIMARY KEY(tag, prompt_id)) WITHOUT ROWID",
    "CREATE INDEX tag_of ON prompt_tag(prompt_id)",
    """CREATE TABLE flag(
        id INTEGER PRIMARY KEY, prompt_id INTEGER NOT NULL REFERENCES prompt(id),
        person_id INTEGER NOT NULL REFERENCES person(id), reason TEXT NOT NULL, created_at REAL NOT NULL,
        resolved_at REAL, resolved_by INTEGER REFERENCES person(id))""",
    "CREATE INDEX flag_open ON flag(prompt_id) WHERE resolved_at IS NULL",
)

# Counts that pages show of a hundred thousand prompts, kept as they change: counting anew would take a person's
# patience at every page.
_WANTED = "CASE WHEN {0}.paused OR {0}.gold THEN 0 ELSE max(0, {0}.overlap - {0}.taken) END"
_TALLIES = (
    "CREATE TABLE tally(key TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "INSERT INTO tally VALUES ('prompts', 0), ('wanted', 0)",
    f"""CREATE TRIGGER tally_of_new_prompt AFTER INSERT ON prompt BEGIN
        UPDATE tally SET value = value + 1 WHERE key = 'prompts';
        UPDATE tally SET value = value + {_WANTED.format("NEW")} WHERE key = 'wanted';
        INSERT INTO tally VALUES ('source ' || NEW.source_id, 1) ON CONFLICT(key) DO UPDATE SET value = value + 1; END""",
    f"""CREATE TRIGGER tally_of_changed_prompt AFTER UPDATE OF taken, overlap, paused, gold ON prompt BEGIN
        UPDATE tally SET value = value + {_WANTED.format("NEW")} - {_WANTED.format("OLD")} WHERE key = 'wanted'; END""",
    """CREATE TRIGGER tally_of_new_tag AFTER INSERT ON prompt_tag BEGIN
        INSERT INTO tally VALUES ('tag ' || NEW.tag, 1) ON CONFLICT(key) DO UPDATE SET value = value + 1; END""",
    """CREATE TRIGGER tally_of_lost_tag AFTER DELETE ON prompt_tag BEGIN
        UPDATE tally SET value = value - 1 WHERE key = 'tag ' || OLD.tag; END""",
)

# A slot is one of a prompt's `overlap` places. Live are the places that somebody holds or has filled; a unique
# index over them makes overlap exact whatever races. An extra, a late answer, has no place.
_ASSIGNMENTS = (
    """CREATE TABLE assignment(
        id INTEGER PRIMARY KEY, prompt_id INTEGER NOT NULL REFERENCES prompt(id),
        person_id INTEGER NOT NULL REFERENCES person(id), slot INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('claimed', 'submitted', 'skipped', 'expired')),
        extra INTEGER NOT NULL DEFAULT 0, lease_until REAL NOT NULL, created_at REAL NOT NULL,
        skip_reason TEXT, UNIQUE(prompt_id, person_id))""",
    """CREATE UNIQUE INDEX one_in_each_slot ON assignment(prompt_id, slot)
        WHERE state IN ('claimed', 'submitted') AND extra = 0""",
    "CREATE INDEX assignment_lease ON assignment(lease_until) WHERE state = 'claimed'",
    "CREATE INDEX assignment_of ON assignment(person_id, state, id)",
    "CREATE INDEX assignment_skipped ON assignment(id) WHERE state = 'skipped'",
    """CREATE TRIGGER taken_after_claim AFTER INSERT ON assignment BEGIN
        UPDATE prompt SET taken = (SELECT count(*) FROM assignment WHERE prompt_id = NEW.prompt_id
            AND state IN ('claimed', 'submitted') AND extra = 0) WHERE id = NEW.prompt_id; END""",
    """CREATE TRIGGER taken_after_change AFTER UPDATE OF state, extra ON assignment BEGIN
        UPDATE prompt SET taken = (SELECT count(*) FROM assignment WHERE prompt_id = NEW.prompt_id
            AND state IN ('claimed', 'submitted') AND extra = 0) WHERE id = NEW.prompt_id; END""",
    """CREATE TABLE draft(
        assignment_id INTEGER PRIMARY KEY REFERENCES assignment(id), turns TEXT NOT NULL, rev INTEGER NOT NULL,
        saved_at REAL NOT NULL)""",
)

_DEMONSTRATIONS = (
    """CREATE TABLE suggestion(
        id INTEGER PRIMARY KEY, assignment_id INTEGER NOT NULL REFERENCES assignment(id), made_by TEXT NOT NULL,
        text TEXT NOT NULL, created_at REAL NOT NULL)""",
    "CREATE INDEX suggestion_of ON suggestion(assignment_id)",
    """CREATE TABLE demonstration(
        id INTEGER PRIMARY KEY, prompt_id INTEGER NOT NULL REFERENCES prompt(id),
        person_id INTEGER NOT NULL REFERENCES person(id),
        assignment_id INTEGER NOT NULL UNIQUE REFERENCES assignment(id),
        status TEXT NOT NULL CHECK (status IN ('submitted', 'accepted', 'returned')),
        rev INTEGER NOT NULL, extra INTEGER NOT NULL DEFAULT 0, created_at REAL NOT NULL,
        changed_at REAL NOT NULL)""",
    "CREATE INDEX demonstration_status ON demonstration(status, id)",
    "CREATE INDEX demonstration_person ON demonstration(person_id, status)",
    "CREATE INDEX demonstration_prompt ON demonstration(prompt_id)",
    """CREATE TABLE revision(
        demonstration_id INTEGER NOT NULL REFERENCES demonstration(id), rev INTEGER NOT NULL,
        person_id INTEGER NOT NULL REFERENCES person(id), turns TEXT NOT NULL, guideline_version INTEGER NOT NULL,
        seconds REAL NOT NULL, suggestion_id INTEGER REFERENCES suggestion(id), edit_ratio REAL,
        post_key TEXT NOT NULL, created_at REAL NOT NULL, event_id INTEGER NOT NULL REFERENCES event(id),
        PRIMARY KEY(demonstration_id, rev)) WITHOUT ROWID""",
    "CREATE UNIQUE INDEX each_post_once ON revision(person_id, post_key)",
    "CREATE INDEX revision_seconds ON revision(person_id, seconds)",
    """CREATE TABLE review(
        id INTEGER PRIMARY KEY, demonstration_id INTEGER NOT NULL REFERENCES demonstration(id), rev INTEGER NOT NULL,
        person_id INTEGER NOT NULL REFERENCES person(id),
        decision TEXT NOT NULL CHECK (decision IN ('accepted', 'edited', 'returned')),
        comment TEXT NOT NULL, created_at REAL NOT NULL)""",
    "CREATE INDEX review_of ON review(demonstration_id)",
    """CREATE TABLE loss(
        demonstration_id INTEGER NOT NULL REFERENCES demonstration(id), rev INTEGER NOT NULL, run TEXT NOT NULL,
        before REAL NOT NULL, after REAL NOT NULL, created_at REAL NOT NULL,
        PRIMARY KEY(demonstration_id, rev, run)) WITHOUT ROWID""",
)

_JUDGEMENTS = (
    """CREATE TABLE batch(
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, model_a TEXT NOT NULL, model_b TEXT NOT NULL,
        sampling TEXT NOT NULL, overlap INTEGER NOT NULL, created_at REAL NOT NULL, closed_at REAL,
        pairs INTEGER NOT NULL DEFAULT 0, identical INTEGER NOT NULL DEFAULT 0, leaks INTEGER NOT NULL DEFAULT 0)""",
    """CREATE TABLE pair(
        id INTEGER PRIMARY KEY, batch_id INTEGER NOT NULL REFERENCES batch(id),
        prompt_id INTEGER NOT NULL REFERENCES prompt(id), answer_a TEXT NOT NULL, answer_b TEXT NOT NULL,
        expected TEXT, taken INTEGER NOT NULL DEFAULT 0, UNIQUE(batch_id, prompt_id))""",
    "CREATE INDEX pair_prompt ON pair(prompt_id)",
    """CREATE TABLE judgement(
        id INTEGER PRIMARY KEY, pair_id INTEGER NOT NULL REFERENCES pair(id),
        person_id INTEGER NOT NULL REFERENCES person(id), slot INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('claimed', 'judged', 'skipped', 'expired')),
        extra INTEGER NOT NULL DEFAULT 0, left TEXT NOT NULL CHECK (left IN ('a', 'b')),
        lease_until REAL NOT NULL, created_at REAL NOT NULL,
        verdict TEXT CHECK (verdict IN ('a_much', 'a', 'tie', 'b', 'b_much', 'both_bad')),
        rating_a INTEGER CHECK (rating_a BETWEEN 1 AND 7), rating_b INTEGER CHECK (rating_b BETWEEN 1 AND 7),
        flags_a TEXT NOT NULL DEFAULT '[]', flags_b TEXT NOT NULL DEFAULT '[]', comment TEXT NOT NULL DEFAULT '',
        seconds REAL, judged_at REAL, UNIQUE(pair_id, person_id))""",
    """CREATE UNIQUE INDEX one_judgement_in_each_slot ON judgement(pair_id, slot)
        WHERE state IN ('claimed', 'judged') AND extra = 0""",
    "CREATE INDEX judgement_lease ON judgement(lease_until) WHERE state = 'claimed'",
    "CREATE INDEX judgement_of ON judgement(person_id, state)",
    """CREATE TRIGGER pair_taken_after_claim AFTER INSERT ON judgement BEGIN
        UPDATE pair SET taken = (SELECT count(*) FROM judgement WHERE pair_id = NEW.pair_id
            AND state IN ('claimed', 'judged') AND extra = 0) WHERE id = NEW.pair_id; END""",
    """CREATE TRIGGER pair_taken_after_change AFTER UPDATE OF state, extra ON judgement BEGIN
        UPDATE pair SET taken = (SELECT count(*) FROM judgement WHERE pair_id = NEW.pair_id
            AND state IN ('claimed', 'judged') AND extra = 0) WHERE id = NEW.pair_id; END""",
)

_EXPORTS = (
    """CREATE TABLE export(
        id TEXT PRIMARY KEY, kind TEXT NOT NULL, filter TEXT NOT NULL, made_by TEXT NOT NULL, created_at REAL NOT NULL)""",
    """CREATE TABLE export_line(
        export_id TEXT NOT NULL REFERENCES export(id), file TEXT NOT NULL, line INTEGER NOT NULL, text TEXT NOT NULL,
        PRIMARY KEY(export_id, file, line)) WITHOUT ROWID""",
)

_FIRST = (
    *_PEOPLE, *_EVENTS, *_PROMPTS, *_TALLIES, *_ASSIGNMENTS, *_DEMONSTRATIONS, *_JUDGEMENTS, *_EXPORTS
)  # fmt: skip

# --- the second version ---

# Words of what people ask, so that a search reads no text: numbers of prompts only, and beginnings of words too.
_WORDS = (
    """CREATE VIRTUAL TABLE prompt_words USING fts5(text, content='', columnsize=0, detail='none',
        prefix='1 2 3', tokenize='unicode61 remove_diacritics 2')""",
    "INSERT INTO prompt_words(rowid, text) SELECT id, words_of(messages) FROM prompt",
    "DROP INDEX prompt_opening",
)

# A prompt that people judged lost is asked in a new round, and then also of who answered it before. SQLite cannot
# change a table's UNIQUE, so the table is made anew; what refers to it goes on referring to the same numbers.
_ROUNDS = (
    "ALTER TABLE prompt ADD COLUMN round INTEGER NOT NULL DEFAULT 0",
    """CREATE TABLE assignment_of_rounds(
        id INTEGER PRIMARY KEY, prompt_id INTEGER NOT NULL REFERENCES prompt(id),
        person_id INTEGER NOT NULL REFERENCES person(id), slot INTEGER NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('claimed', 'submitted', 'skipped', 'expired')),
        extra INTEGER NOT NULL DEFAULT 0, lease_until REAL NOT NULL, created_at REAL NOT NULL,
        skip_reason TEXT, round INTEGER NOT NULL DEFAULT 0, UNIQUE(prompt_id, person_id, round))""",
    """INSERT INTO assignment_of_rounds SELECT id, prompt_id, person_id, slot, state, extra, lease_until, created_at,
        skip_reason, 0 FROM assignment""",
    "DROP TABLE assignment",
    "ALTER TABLE assignment_of_rounds RENAME TO assignment",
    *(statement for statement in _ASSIGNMENTS if not statement.startswith("CREATE TABLE")),
)

# A sampled comparison has several pairs for one prompt; `tests` marks the batch of pairs whose better side is known.
_SAMPLES = (
    "ALTER TABLE batch ADD COLUMN tests INTEGER NOT NULL DEFAULT 0",
    "DROP TRIGGER pair_taken_after_claim",
    "DROP TRIGGER pair_taken_after_change",
    """CREATE TABLE pair_of_samples(
        id INTEGER PRIMARY KEY, batch_id INTEGER NOT NULL REFERENCES batch(id),
        prompt_id INTEGER NOT NULL REFERENCES prompt(id), answer_a TEXT NOT NULL, answer_b TEXT NOT NULL,
        expected TEXT, taken INTEGER NOT NULL DEFAULT 0, sample INTEGER NOT NULL DEFAULT 0,
        UNIQUE(batch_id, prompt_id, sample))""",
    """INSERT INTO pair_of_samples SELECT id, batch_id, prompt_id, answer_a, answer_b, expected, taken, 0 FROM pair""",
    "DROP TABLE pair",
    "ALTER TABLE pair_of_samples RENAME TO pair",
    "CREATE INDEX pair_prompt ON pair(prompt_id)",
    *(statement for statement in _JUDGEMENTS if statement.startswith("CREATE TRIGGER")),
    "CREATE INDEX pair_expected ON pair(id) WHERE expected IS NOT NULL",
    "CREATE INDEX prompt_gold ON prompt(id) WHERE gold = 1",
)

# `second_rev` is the text that a second reviewer is to read, without being told what the first one said.
_SECOND_READINGS = (
    "ALTER TABLE demonstration ADD COLUMN second_rev INTEGER",
    "CREATE INDEX demonstration_second ON demonstration(id) WHERE second_rev IS NOT NULL",
    "ALTER TABLE review ADD COLUMN second INTEGER NOT NULL DEFAULT 0",
    "CREATE INDEX review_second ON review(demonstration_id, rev) WHERE second = 1",
)

# What is accepted of each source and tag, counted as it is decided; `usable` leaves out the prompts that are tests.
_ADD = "ON CONFLICT(key) DO UPDATE SET value = value + excluded.value"
_TURN = "(NEW.status = 'accepted') - (OLD.status = 'accepted')"
_ACCEPTED_OF = "(SELECT count(*) FROM demonstration WHERE prompt_id = {} AND status = 'accepted')"
_ACCEPTED = "FROM demonstration d JOIN prompt p ON p.id = d.prompt_id WHERE d.status = 'accepted'"
_TALLIES_OF_ACCEPTED = (
    f"INSERT INTO tally SELECT 'accepted source ' || p.source_id, count(*) {_ACCEPTED} GROUP BY p.source_id",
    f"INSERT INTO tally SELECT 'usable source ' || p.source_id, count(*) {_ACCEPTED} AND p.gold = 0 GROUP BY p.source_id",
    """INSERT INTO tally SELECT 'accepted tag ' || t.tag, count(*) FROM demonstration d
        JOIN prompt_tag t ON t.prompt_id = d.prompt_id WHERE d.status = 'accepted' GROUP BY t.tag""",
    f"""CREATE TRIGGER tally_of_decision AFTER UPDATE OF status ON demonstration WHEN {_TURN} <> 0 BEGIN
        INSERT INTO tally SELECT 'accepted source ' || source_id, {_TURN} FROM prompt WHERE id = NEW.prompt_id {_ADD};
        INSERT INTO tally SELECT 'usable source ' || source_id, {_TURN} FROM prompt
            WHERE id = NEW.prompt_id AND gold = 0 {_ADD};
        INSERT INTO tally SELECT 'accepted tag ' || tag, {_TURN} FROM prompt_tag WHERE prompt_id = NEW.prompt_id {_ADD};
        END""",
    f"""CREATE TRIGGER tally_of_test AFTER UPDATE OF gold ON prompt WHEN OLD.gold <> NEW.gold BEGIN
        INSERT INTO tally VALUES ('usable source ' || NEW.source_id,
            (OLD.gold - NEW.gold) * {_ACCEPTED_OF.format("NEW.id")}) {_ADD}; END""",
    f"""CREATE TRIGGER tally_of_new_tag_of_accepted AFTER INSERT ON prompt_tag
        WHEN {_ACCEPTED_OF.format("NEW.prompt_id")} BEGIN
        INSERT INTO tally VALUES ('accepted tag ' || NEW.tag, {_ACCEPTED_OF.format("NEW.prompt_id")}) {_ADD}; END""",
    f"""CREATE TRIGGER tally_of_lost_tag_of_accepted AFTER DELETE ON prompt_tag
        WHEN {_ACCEPTED_OF.format("OLD.prompt_id")} BEGIN
        INSERT INTO tally VALUES ('accepted tag ' || OLD.tag, -{_ACCEPTED_OF.format("OLD.prompt_id")}) {_ADD}; END""",
)

_SECOND = (*_WORDS, *_TALLIES_OF_ACCEPTED, *_ROUNDS, *_SAMPLES, *_SECOND_READINGS)

# --- the third version ---

# What people ask and are told about a prompt. `open`: a question that nobody has answered yet.
_QUESTIONS = (
    """CREATE TABLE remark(
        id INTEGER PRIMARY KEY, prompt_id INTEGER NOT NULL REFERENCES prompt(id),
        person_id INTEGER NOT NULL REFERENCES person(id), kind TEXT NOT NULL CHECK (kind IN ('question', 'answer')),
        text TEXT NOT NULL, open INTEGER NOT NULL, created_at REAL NOT NULL)""",
    "CREATE INDEX remark_of ON remark(prompt_id, id)",
    "CREATE INDEX remark_by ON remark(person_id, id)",
    "CREATE INDEX remark_open ON remark(id) WHERE open = 1",
)

# In which language it is asked, empty where it does not show; and how many prompts each user of a source asked.
_ACCEPTED_LANGUAGE = "INSERT INTO tally SELECT 'accepted language ' || language, {} FROM prompt WHERE id = {} AND language <> '' "
_LANGUAGES = (
    "ALTER TABLE prompt ADD COLUMN language TEXT NOT NULL DEFAULT ''",
    "CREATE INDEX prompt_user ON prompt(source_id, source_user) WHERE source_user IS NOT NULL",
    f"""CREATE TRIGGER tally_of_language AFTER INSERT ON prompt WHEN NEW.language <> '' BEGIN
        INSERT INTO tally VALUES ('language ' || NEW.language, 1) {_ADD}; END""",
    f"""CREATE TRIGGER tally_of_language_known_later AFTER UPDATE OF language ON prompt
        WHEN OLD.language = '' AND NEW.language <> '' BEGIN
        INSERT INTO tally VALUES ('language ' || NEW.language, 1) {_ADD};
        INSERT INTO tally VALUES ('accepted language ' || NEW.language, {_ACCEPTED_OF.format("NEW.id")}) {_ADD}; END""",
    f"""CREATE TRIGGER tally_of_decision_by_language AFTER UPDATE OF status ON demonstration WHEN {_TURN} <> 0 BEGIN
        {_ACCEPTED_LANGUAGE.format(_TURN, "NEW.prompt_id")} {_ADD}; END""",
)

_THIRD = (*_QUESTIONS, *_LANGUAGES)

# --- the fourth version ---

_FOURTH = ("CREATE INDEX review_by ON review(person_id)",)  # how many each person reviewed
MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST, _SECOND, _THIRD, _FOURTH)


def migrate(db: sqlite3.Connection, *, after: int = 0, up_to: int = len(MIGRATIONS)) -> None:
    """Take tables from one version to another, inside the caller's transaction."""
    db.create_function("words_of", 1, words_of, deterministic=True)
    for statement in (s for migration in MIGRATIONS[after:up_to] for s in migration):
        db.execute(statement)
