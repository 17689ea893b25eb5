"""Server time of the studio's pages over a large store, and of claims from sixteen processes at once.

Pages are asked of the real server over loopback, one after the other, by one person; the time is from the request
to the last byte. Run: python -m benchmarks.studio (PROMPTS=100000). Results: benchmarks/results/studio.json
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from benchmarks.figures import write_result
from tuition import files
from tuition.collect import Store, batches, judging, people, prompts, queue, reviewing, sessions
from tuition.collect import demonstrations as demos
from tuition.conversation import Message

ROUNDS = 30
PROCESSES = 16
CLAIMS = 2_000


def main() -> None:
    """Measure, print, and write the results."""
    count = int(os.environ.get("PROMPTS", "100000"))
    with tempfile.TemporaryDirectory(dir=os.environ.get("FOLDER")) as name:
        folder = Path(name)
        found: dict[str, Any] = {"machine_load": os.getloadavg(), "cpus": os.cpu_count(), "prompts": count}
        found["claims_milliseconds"] = measure_claims(folder / "claims.db")
        session = fill(folder / "team.db", count)
        found["pages_milliseconds"] = measure_pages(folder, session)
    print(files.json_bytes(found).decode())
    write_result("studio", found)


# --- pages


def fill(path: Path, count: int) -> str:
    """A store with so many prompts, a twentieth of them answered, half of those accepted; an admin's session."""
    chance = random.Random(0)
    words = [
        "what",
        "why",
        "how",
        "write",
        "explain",
        "list",
        "compare",
        "basil",
        "river",
        "proof",
        "violin",
        "harbour",
        "number",
        "letter",
    ]
    tags = ["brainstorming", "open question", "closed question", "generation", "rewrite", "chat"]
    new = (
        prompts.NewPrompt(
            (Message("user", f"{n}: " + " ".join(chance.choices(words, k=30))),),
            f"made:{n}",
            tags=(chance.choice(tags),),
        )
        for n in range(count)
    )
    with Store(path) as store:
        admin = people.local_admin(store)
        prompts.add(store, new, source="made", licence="CC0-1.0", consent="made", by=admin.id)
        with store.writing():
            writers = [people.add_person(store, f"W{n}", "writer", by=None).id for n in range(20)]
            for n in range(count // 20):
                held = queue.claim(store, writers[n % 20])
                assert held is not None
                turns = [{"role": "assistant", "content": f"An answer, number {n}. " * 20}]
                sent = demos.submit(store, held.id, writers[n % 20], turns, post_key=str(n), seconds=60)
                if n % 2:
                    reviewing.review(store, sent.id, admin.id, "accepted", rev=1)
            pairs = [batches.NewPair(n, f"good {n}", f"poor {n}") for n in range(1, 1_001)]
            batches.open_batch(
                store, name="x", model_a="aaaa", model_b="bbbb", pairs=pairs, sampling={}, by=None
            )
            for _ in range(300):
                task = judging.claim(store, admin.id)
                assert task is not None
                judging.judge(store, task.id, admin.id, judging.Verdict("left"))
        return sessions.open_session(store, admin.id)


def measure_pages(folder: Path, session: str) -> dict[str, dict[str, float]]:
    """Page → median and 95th percentile."""
    with serving(folder) as address:
        port = address.rsplit(":", 1)[1]
        with httpx.Client(
            base_url=address, headers={"Origin": address}, cookies={f"tuition-{port}": session}
        ) as client:
            task = client.post("/write/next").headers["location"]
            asked = {
                "write": "/write", "editor": task, "review": "/review", "demonstration": "/review/10",
                "judge": "/judge", "prompts": "/prompts", "prompts by tag": "/prompts?tag=rewrite",
                "prompts by words": "/prompts?words=violin+harbour+basil+letter", "one prompt": "/prompts/77",
                "overview": "/overview", "comparison": "/overview/comparison/1",
            }  # fmt: skip
            times = {
                name: [fetch(client, "GET", path) for _ in range(ROUNDS)] for name, path in asked.items()
            }
            draft = [
                fetch(client, "POST", f"{task}/draft", {"turn": "x" * n, "rev": str(n)})
                for n in range(1, ROUNDS)
            ]
    times["save a draft"] = draft
    return {name: figures(taken) for name, taken in times.items()}


def fetch(client: httpx.Client, method: str, path: str, data: dict[str, str] | None = None) -> float:
    """Milliseconds of one request."""
    started = time.perf_counter()
    answer = client.request(method, path, data=data, headers={"Accept": "text/html"})
    assert answer.status_code in (200, 303, 409), (path, answer.status_code)
    return 1_000 * (time.perf_counter() - started)


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """The studio over the store in a folder; its address."""
    command = [sys.executable, "-m", "tuition", "studio", "--no-open", "--port", "0"]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        found = re.search(r"http://[\d.]+:\d+", process.stdout.readline())
        assert found is not None
        yield found.group()
    finally:
        process.terminate()
        process.wait(20)


# --- claims


def measure_claims(path: Path) -> dict[str, float]:
    """Sixteen processes, 2,000 items, each claimed by another person; none may be given to two."""
    with Store(path) as store:
        new = (prompts.NewPrompt((Message("user", f"{n}"),), f"made:{n}") for n in range(CLAIMS))
        prompts.add(store, new, source="made", by=None)
        with store.writing():
            ids = [people.add_person(store, f"W{n}", "writer", by=None).id for n in range(CLAIMS)]
    context = multiprocessing.get_context("fork")
    answers, together = context.SimpleQueue(), context.Barrier(PROCESSES)
    workers = [
        context.Process(target=_claim, args=(path, ids[n::PROCESSES], answers, together))
        for n in range(PROCESSES)
    ]
    for worker in workers:
        worker.start()
    taken = [milliseconds for _ in workers for milliseconds in answers.get()]
    for worker in workers:
        worker.join()
    with Store(path) as store, store.reading() as db:
        claimed = db.execute("SELECT count(*), count(DISTINCT prompt_id) FROM assignment").fetchone()
    assert tuple(claimed) == (CLAIMS, CLAIMS), tuple(claimed)
    return figures(taken) | {"p99": sorted(taken)[int(0.99 * len(taken))], "longest": max(taken)}


def _claim(path: Path, ids: list[int], answers: Any, together: Any) -> None:
    taken = []
    with Store(path) as store:
        together.wait()
        for person_id in ids:
            started = time.perf_counter()
            queue.claim(store, person_id)
            taken.append(1_000 * (time.perf_counter() - started))
    answers.put(taken)


def figures(taken: list[float]) -> dict[str, float]:
    """Median and 95th percentile, in milliseconds."""
    return {
        "median": round(statistics.median(taken), 2),
        "p95": round(sorted(taken)[int(0.95 * len(taken))], 2),
    }


if __name__ == "__main__":
    main()
