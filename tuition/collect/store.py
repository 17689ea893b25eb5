"""The store: one SQLite file that holds who wrote and judged what, under which guideline.

Here are its connections, transactions, migrations, events and backups; the modules beside it hold the
questions. A transaction that was committed is on the disk (WAL with `synchronous=FULL`). The store never
deletes what a person wrote, and its events can neither be changed nor removed.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import quote

from tuition import files
from tuition.collect.schema import APPLICATION_ID, MIGRATIONS, migrate
from tuition.errors import UserError

BUSY_SECONDS = 20.0  # how long a writer waits for others before it gives up
_LEAST_SECONDS = 0.1  # for SQLite, where the turn alone took that long
_HEADER = b"SQLite format 3\0"


class Store:
    """One store file; may be used from several threads and processes at once.

    Args:
        path: the file; made where there is none, unless `must_exist`.
        now: the clock, in seconds since 1970; tests pass their own.
        read_only: nothing is written, and no migration runs.

    Raises:
        UserError: the file is missing, is no store, or was written by a newer version.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        now: Callable[[], float] = time.time,
        must_exist: bool = False,
        read_only: bool = False,
    ) -> None:
        self.path = Path(path)
        self.now = now
        self._read_only = read_only
        self._of_thread = threading.local()
        self._all: list[sqlite3.Connection] = []
        self._lock = threading.Lock()
        if (must_exist or read_only) and not self.path.is_file():
            step = "Check the spelling, or make one: tuition collect import PROMPTS --store FILE"
            raise UserError("there is no such store", where=str(path), next_step=step)
        if self.path.exists() and not is_sqlite(self.path) and self.path.stat().st_size:
            raise UserError("this is no SQLite file", where=str(path), next_step="Name the store's file")
        if not read_only:
            _make_private(self.path)
            self._migrate()
        self._refuse_foreign_tables()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of all threads."""
        with self._lock:
            connections, self._all = self._all, []
        for connection in connections:
            connection.close()
        self._of_thread = threading.local()

    # --- transactions ---

    @contextmanager
    def writing(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction that is on the disk when the block ends, and never happened where it raises.

        Inside another one it is part of that. The write lock is taken at once, so what is read in the block
        is still so when it commits.

        Args:
            durable: False lets it reach the disk with the next durable one, which takes a fiftieth of the time:
                a kill loses nothing, a power cut may. For what the next request can do again, such as a lease.
        """
        db = self._connection()
        if db.in_transaction:
            if not self._of_thread.writes:  # else it would be lost or late, as the reading ends
                raise RuntimeError("nothing is written inside a reading")
            yield db
            return
        began = monotonic()
        # where another program holds the file, those behind must not wait for it one after the other
        with self._turn(), _patient(db, max(_LEAST_SECONDS, BUSY_SECONDS - (monotonic() - began))):
            yield from self._transaction(db, "FULL" if durable else "NORMAL")

    def _transaction(self, db: sqlite3.Connection, synchronous: str) -> Iterator[sqlite3.Connection]:
        try:
            db.execute(f"PRAGMA synchronous={synchronous}")
            db.execute("BEGIN IMMEDIATE")
            self._of_thread.writes = True
            yield db
            db.execute("COMMIT")
        except sqlite3.OperationalError as error:
            raise UserError(
                f"the store could not be written ({error})", where=str(self.path), next_step=_mend_of(error)
            ) from error
        finally:
            self._of_thread.writes = False
            if db.in_transaction:
                db.execute("ROLLBACK")

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the store, whatever others write meanwhile.

        Raises:
            UserError: the file is damaged.
        """
        db = self._connection()
        if db.in_transaction:
            yield db
            return
        try:
            db.execute("BEGIN")
            try:
                yield db
            finally:
                db.execute("COMMIT")
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
            step = "Take the latest backup, or try: sqlite3 FILE .recover"
            raise UserError(f"the file is damaged ({error})", where=str(self.path), next_step=step) from error

    def note(self, verb: str, target: str, *, by: int | None, **body: Any) -> int:
        """Append an event to the log; its id. Belongs inside the transaction that it tells of.

        Args:
            verb: what happened, such as `submitted`.
            target: to what, such as `demonstration 12`.
            by: the person's id; None: the command line.
        """
        with self.writing() as db:
            row = (self.now(), by, verb, target, as_json(body))
            cursor = db.execute(
                "INSERT INTO event(at, person_id, verb, target, body) VALUES (?,?,?,?,?)", row
            )
            return int(cursor.lastrowid or 0)

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for one's turn to write. The system wakes those who wait in the order in which they came, where
        SQLite lets each try again at random and some wait for seconds. The lock goes with its process."""
        if self._read_only:
            yield
            return
        descriptor = files.open_lock(self.path.with_name(f"{self.path.name}-lock"))
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
            time.sleep(0.0001)  # else the same process, still running, would be the next again and again

    # --- settings ---

    def setting(self, key: str, default: Any) -> Any:
        """A value of the project, such as the target mix; `default` where none was set."""
        with self.reading() as db:
            row = db.execute("SELECT value FROM setting WHERE key = ?", (key,)).fetchone()
        return default if row is None else json.loads(row[0])

    def set_setting(self, key: str, value: Any, *, by: int | None) -> None:
        """Set a value of the project."""
        with self.writing() as db:
            db.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (key, as_json(value)))
            self.note("set", f"setting {key}", by=by, value=value)

    # --- the file ---

    def backup(self, to: str | Path) -> None:
        """Write one consistent copy while others go on reading and writing; complete or absent.

        Raises:
            UserError: the copy would replace the store itself.
        """
        target = Path(to)
        if target.exists() and target.samefile(self.path):
            raise UserError("is the store itself", where=str(to), next_step="Name another file to write")
        files.make_folder(target.absolute().parent)
        temporary = target.with_name(f".{target.name}.tmp")
        files.remove_file(temporary)
        _make_private(temporary)
        try:
            with closing(sqlite3.connect(temporary)) as copy, closing(self._open()) as db:
                db.backup(copy)  # in one step: a copy by pages would begin anew at each write of others
                copy.execute("PRAGMA journal_mode=DELETE")
            files.sync(temporary)
            files.disk.replace(temporary, target)
            files.disk.sync_path(target.absolute().parent)
        finally:
            files.remove_file(temporary)

    def _connection(self) -> sqlite3.Connection:
        """This thread's own connection."""
        connection: sqlite3.Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = self._of_thread.connection = self._open()
            self._of_thread.writes = False
            with self._lock:
                self._all.append(connection)
        return connection

    def _open(self) -> sqlite3.Connection:
        mode = "ro" if self._read_only else "rwc"
        address = f"file:{quote(str(self.path.absolute()))}?mode={mode}"
        try:
            db = sqlite3.connect(
                address, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA trusted_schema=OFF")  # what a stranger's file defines calls no functions
            db.execute("PRAGMA foreign_keys=ON")
            db.execute("PRAGMA cell_size_check=ON")
            if self._read_only:
                db.execute("PRAGMA query_only=ON")
            elif db.execute("PRAGMA journal_mode=WAL").fetchone()[0] != "wal":
                raise sqlite3.OperationalError("the disk gives no shared memory, which WAL needs")
        except sqlite3.Error as error:
            step = "Name a file on a local disk that you may write."
            raise UserError(
                f"the store cannot be opened ({error})", where=str(self.path), next_step=step
            ) from error
        return db

    def _migrate(self) -> None:
        db = self._connection()
        if db.execute("PRAGMA user_version").fetchone()[0] == len(MIGRATIONS):
            return
        db.execute("PRAGMA foreign_keys=OFF")  # a table that is made anew is gone for a moment
        try:
            with self.writing() as db:
                version = self._version(db)
                if version == 0:
                    db.execute(f"PRAGMA application_id={APPLICATION_ID}")
                self._refuse_tables_but_of(version, db)  # a migration would run the triggers of a stranger
                migrate(db, after=version)
                self._refuse_loose_ends(db)
                db.execute(f"PRAGMA user_version={len(MIGRATIONS)}")
        finally:
            db.execute("PRAGMA foreign_keys=ON")

    def _refuse_loose_ends(self, db: sqlite3.Connection) -> None:
        if db.execute("PRAGMA foreign_key_check").fetchone() is not None:
            raise UserError(
                "rows of the store refer to others that are not there",
                where=str(self.path),
                next_step="Nothing was changed; take the latest backup",
            )

    def _version(self, db: sqlite3.Connection) -> int:
        """How many migrations the file has been through.

        Raises:
            UserError: it is another program's file, or a newer version's.
        """
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (owner,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        if tables and owner != APPLICATION_ID:
            raise UserError(
                "this SQLite file is no store of tuition", where=str(self.path), next_step="Name another file"
            )
        if version > len(MIGRATIONS):
            raise UserError(
                f"the store has version {version}, and this tuition knows {len(MIGRATIONS)}",
                where=str(self.path),
                next_step="Update tuition, or use the version that wrote it",
            )
        return int(version)

    def _refuse_foreign_tables(self) -> None:
        """A file whose tables are not as the migrations make them could hold views and triggers of a stranger."""
        with self.reading() as db:
            version = self._version(db)
            if version < len(MIGRATIONS):  # only one that is opened to be read can still be old here
                raise UserError(
                    f"the store has version {version}, and this tuition reads {len(MIGRATIONS)}",
                    where=str(self.path),
                    next_step=f"Bring it up, which keeps everything: tuition collect status --store {self.path}",
                )
            self._refuse_tables_but_of(version, db)

    def _refuse_tables_but_of(self, version: int, db: sqlite3.Connection) -> None:
        if _tables(db) != _tables_of(version):
            raise UserError(
                "its tables are not those that tuition makes",
                where=str(self.path),
                next_step="Name a store that tuition wrote, and nothing else changed",
            )


@contextmanager
def _patient(db: sqlite3.Connection, seconds: float) -> Iterator[None]:
    """Inside, the connection waits no longer than this for another program that writes."""
    db.execute(f"PRAGMA busy_timeout={seconds * 1000:.0f}")
    try:
        yield
    finally:
        db.execute(f"PRAGMA busy_timeout={BUSY_SECONDS * 1000:.0f}")


def _mend_of(error: sqlite3.OperationalError) -> str:
    """What to do where nothing could be written."""
    code = getattr(error, "sqlite_errorcode", 0)  # Python's own errors have none
    if (code & 0xFF) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return "Nothing was stored: another program holds the file, such as a browser of databases. Close it, and try again"
    return "Nothing was stored; check the disk's free space and permissions, then try again"


def _make_private(path: Path) -> None:
    """A new store is its owner's alone: it holds hashes of passwords, and texts that nobody has published."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise UserError(
            f"the store cannot be opened ({error.strerror})",
            where=str(path),
            next_step="Name a file on a local disk that you may write",
        ) from error


def is_sqlite(path: Path) -> bool:
    """Whether the file's first bytes are SQLite's."""
    with path.open("rb") as stream:
        return stream.read(len(_HEADER)) == _HEADER


def as_json(value: Any) -> str:
    """JSON as it is kept in the store: the same value always gives the same text."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, allow_nan=False)


def _tables(db: sqlite3.Connection) -> frozenset[tuple[str, str, str]]:
    rows = db.execute(
        "SELECT type, name, coalesce(sql, '') FROM sqlite_schema WHERE name NOT GLOB 'sqlite_*'"
    )
    return frozenset(tuple(row) for row in rows)


@cache
def _tables_of(version: int) -> frozenset[tuple[str, str, str]]:
    """The tables of a store after so many migrations."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
        migrate(db, up_to=version)
        return _tables(db)
