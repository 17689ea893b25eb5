"""A real studio on loopback: the command itself, in its own process, over a store that the test owns."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.patience import PATIENCE_SECONDS
from tuition import jobs
from tuition.collect import Store, people, sessions

PASSWORD = "a long enough password"


@dataclass
class Running:
    """A studio that answers, and who is signed in to it.

    Attributes:
        address: of its first page.
        link: signs the admin of the machine in, once.
    """

    folder: Path
    port: int = 0
    process: subprocess.Popen[str] | None = None
    address: str = ""
    link: str = ""
    clients: list[httpx.Client] = field(default_factory=list)
    held: socket.socket | None = None

    @property
    def store(self) -> Path:
        return self.folder / "team.db"

    def start(self) -> Running:
        """Start the command and wait for the link that it prints."""
        if self.held is None and sys.platform == "linux":
            self._hold_a_port()
        command = [sys.executable, "-m", "tuition", "studio", "--no-open", "--port", str(self.port)]
        self.process = subprocess.Popen(
            command, cwd=self.folder, stdout=subprocess.PIPE, text=True, env=os.environ
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.search(r"(http://127\.0\.0\.1:(\d+))/enter/\S+", line)
        assert found, f"no link in {line!r}"
        self.address, self.port, self.link = found.group(1), int(found.group(2)), found.group()
        return self

    def _hold_a_port(self) -> None:
        """One that nobody else is given while a killed studio is not there; who does not listen stands in no way."""
        self.held = socket.socket()
        self.held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.held.bind(("127.0.0.1", 0))
        self.port = self.held.getsockname()[1]

    def stop(self, number: int = signal.SIGTERM) -> None:
        """End it as a signal does."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(PATIENCE_SECONDS)

    def stranger(self) -> httpx.Client:
        """A browser's tab that nobody signed in on."""
        client = httpx.Client(
            base_url=self.address, headers={"Origin": self.address}, timeout=PATIENCE_SECONDS,
            limits=httpx.Limits(max_keepalive_connections=0),  # the server may end an idle one as it is used again
        )  # fmt: skip
        self.clients.append(client)
        return client

    def signed_in(self, name: str, role: str) -> httpx.Client:
        """The tab of a person of that name and role."""
        with Store(self.store) as store:
            found = next((p for p in people.people(store) if p.name == name), None)
            person = found or people.add_person(store, name, role, by=None)
            session = sessions.open_session(store, person.id)
        client = self.stranger()
        client.cookies.set(f"tuition-{self.port}", session)
        return client

    def events(self) -> int:
        """How much was ever stored."""
        with Store(self.store) as store, store.reading() as db:
            return int(db.execute("SELECT count(*) FROM event").fetchone()[0])


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    running = Running(tmp_path_factory.mktemp("studio")).start()
    yield running
    for client in running.clients:
        client.close()
    running.stop()
    end_runs(running.folder)


def end_runs(folder: Path) -> None:
    """Runs outlive the studio: those that a failed test left are ended here."""
    for path in folder.glob("outputs/*"):
        for job in jobs.find_all(path):
            if job.runs:
                with suppress(ProcessLookupError):  # it has ended this very moment
                    note = json.loads((path / "jobs" / f"{job.kind}.json").read_text())
                    os.killpg(note["pid"], signal.SIGKILL)


@pytest.fixture
def admin(studio: Running) -> httpx.Client:
    return studio.signed_in("Ada", "admin")
