"""Kill the studio with SIGKILL while people send demonstrations; each acknowledged one must be there exactly once.

The server is forked from a process that has imported everything, so that a kill costs no start of Python. Writers
are processes of their own: they take a prompt, send an answer with a key, and send it again with the same key for
as long as no answer comes, as a browser's person would. Run: python -m tests.prove.posts (POSTS=2000, a kill for every ten).
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

import tuition.studio.app  # noqa: F401  before the forks
from tests.patience import PATIENCE_SECONDS
from tests.prove.faultydisk import memory_folder
from tuition.collect import Store, people, prompts, sessions
from tuition.conversation import Message

WRITERS = 4
_UNDER_WAY = 2 * WRITERS  # posts that a kill may meet


@dataclass
class Tally:
    """What happened.

    Attributes:
        kills: SIGKILLs that met a server while posts were under way.
        repeated: posts that had to be sent more than once.
        acknowledged: answers that a writer was told are stored.
        faults: what is wrong in the store, a sentence each.
    """

    kills: int = 0
    repeated: int = 0
    acknowledged: int = 0
    faults: list[str] = field(default_factory=list)


def prove(kills: int, posts: int, *, seed: int = 0, folder: Path | None = None) -> Tally:
    """Send so many demonstrations through so many kills, and look at what the store holds."""
    with tempfile.TemporaryDirectory(dir=folder or memory_folder()) as name, listening() as door:
        store = Path(name) / "team.db"
        tokens = prepare(store, posts)
        port = door.getsockname()[1]
        context = multiprocessing.get_context("fork")
        said, done, allowed = context.SimpleQueue(), context.Value("q", 0), context.Value("q", 0)
        shares = [posts // WRITERS + (n < posts % WRITERS) for n in range(WRITERS)]
        writers = [
            context.Process(target=write, args=(n, port, tokens[n], share, said, done, allowed))
            for n, share in enumerate(shares)
        ]
        for writer in writers:
            writer.start()
        instants = [posts * n // (kills + 1) for n in range(1, kills + 1)]
        tally = Tally(interrupt(store, door, writers, done, allowed, instants, random.Random(seed)))
        texts: list[str] = []
        for _ in writers:
            sent, repeated = said.get()
            texts += sent
            tally.repeated += repeated
        tally.acknowledged = len(texts)
        tally.faults = faults(store, texts)
        return tally


def listening() -> socket.socket:
    """The socket stays open through kills: who comes meanwhile waits, who was being served is cut off."""
    return socket.create_server(("127.0.0.1", 0), backlog=64)


def prepare(path: Path, posts: int) -> list[str]:
    """A store with enough prompts, and a session for each writer."""
    with Store(path) as store:
        new = (
            prompts.NewPrompt((Message("user", f"Question {n}?"),), f"made:{n}")
            for n in range(posts + WRITERS)
        )
        prompts.add(store, new, source="made", licence="CC0-1.0", consent="made", by=None)
        writers = [people.add_person(store, f"W{n}", "writer", by=None) for n in range(WRITERS)]
        return [sessions.open_session(store, writer.id) for writer in writers]


# --- the server, and what kills it


def interrupt(
    store: Path,
    door: socket.socket,
    writers: list[Any],
    done: Any,
    allowed: Any,
    instants: list[int],
    chance: random.Random,
) -> int:
    """Serve, kill, serve again, until all writers are done; how many kills met a server at work.

    Args:
        done: the number of posts that were acknowledged so far, counted by the writers.
        allowed: as many may be, so that no writer is through before a kill comes, however late it is.
        instants: the numbers of posts after which a server is killed.
    """
    met = 0
    for instant in [*instants, None]:
        allowed.value = sys.maxsize if instant is None else instant + _UNDER_WAY
        server = serve(store, door)
        while at_work(writers) and (instant is None or done.value < instant):
            time.sleep(0.002)
        time.sleep(chance.uniform(0, 0.03))  # somewhere within the next posts
        met += instant is not None and at_work(writers)
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)
    return met


def at_work(writers: list[Any]) -> bool:
    """Whether somebody still sends."""
    return any(writer.is_alive() for writer in writers)


def serve(path: Path, door: socket.socket) -> int:
    """A forked server over the store; its process id."""
    child = os.fork()
    if child:
        return child
    try:  # never back into the code of the parent
        import uvicorn

        from tuition.studio.app import make_app
        from tuition.studio.web import Studio

        studio = Studio(store=Store(path), runs=path.parent / "outputs", port=door.getsockname()[1])
        config = uvicorn.Config(make_app(studio), log_level="error", access_log=False)
        uvicorn.Server(config).run(sockets=[door])
    finally:
        os._exit(1)


# --- the writers


def write(number: int, port: int, session: str, posts: int, said: Any, done: Any, allowed: Any) -> None:
    """Take prompts and answer them, each until it is acknowledged."""
    address = f"http://127.0.0.1:{port}"
    headers, cookies = {"Origin": address}, {f"tuition-{port}": session}
    texts, repeated = [], 0
    with httpx.Client(base_url=address, headers=headers, cookies=cookies, timeout=PATIENCE_SECONDS) as client:
        for n in range(posts):
            while done.value >= allowed.value:
                time.sleep(0.002)
            editor, _ = insist(client, "/write/next", {})
            text = f"answer {n} of writer {number}"
            _, tries = insist(client, f"{editor}/submit", {"turn": text, "post_key": f"{number}-{n}"})
            texts.append(text)
            repeated += tries > 1
            with done.get_lock():
                done.value += 1
    said.put((texts, repeated))


def insist(client: httpx.Client, path: str, data: dict[str, str]) -> tuple[str, int]:
    """Send until it is answered; where the answer leads, and how often it was sent."""
    until, tries = time.monotonic() + PATIENCE_SECONDS, 0
    while True:
        tries += 1
        try:
            answer = client.post(path, data=data)
        except httpx.TransportError:
            if time.monotonic() > until:
                raise
            time.sleep(0.01)
            continue
        if answer.status_code != 303:
            raise AssertionError(f"{path}: {answer.status_code} {answer.text[:300]}")
        return answer.headers["location"], tries


def faults(path: Path, acknowledged: list[str]) -> list[str]:
    """What is wrong in the store: an answer lost, twice there, or never acknowledged."""
    with Store(path) as store, store.reading() as db:
        found = Counter(
            row[0]
            for row in db.execute("SELECT json_extract(turns, '$[0].content') FROM revision").fetchall()
        )
        prompts_twice = db.execute(
            "SELECT count(*) - count(DISTINCT prompt_id) FROM demonstration"
        ).fetchone()[0]
        whole = db.execute("PRAGMA integrity_check").fetchone()[0]
    wrong = [f"{text!r} is there {found[text]} times" for text in acknowledged if found[text] != 1]
    wrong += [f"{text!r} was never acknowledged" for text in found.keys() - set(acknowledged)]
    wrong += [f"{prompts_twice} prompts are answered twice"] if prompts_twice else []
    return wrong + ([f"the file is damaged: {whole}"] if whole != "ok" else [])


def main() -> int:
    """Prove it with many kills, and say what came out."""
    started, count = time.monotonic(), int(os.environ.get("POSTS", "2000"))
    tally = prove(count // 10, count)
    print(
        f"{tally.acknowledged:,} posts acknowledged through {tally.kills:,} kills ({tally.repeated:,} sent more than once), "
        f"{len(tally.faults):,} faults, {time.monotonic() - started:.0f} s"
    )
    print("\n".join(tally.faults[:20]))
    return 1 if tally.faults else 0


if __name__ == "__main__":
    sys.exit(main())
