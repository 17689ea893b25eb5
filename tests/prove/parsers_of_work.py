"""The parsers of what services, commands and people leave: replies, jobs, answers, a store, texts to evaluate."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.prove.inputs import Damage, Parser, as_text, damaged_bytes, damaged_value, laid_file, numbers
from tests.prove.sound_files import JOB, LINES, RECIPE, REPLY, SCHEMA, TEXT


def of_work(root: Path) -> dict[str, Parser]:
    return {
        **_of_services(root / "services"),
        **_of_evaluation(root / "evaluation"),
        **_of_store(root / "store"),
    }


def _damaged_object(sound: Any) -> Callable[[Damage], bytes]:
    """JSON, three times out of four damaged by value, else by bytes."""

    def make(n: Damage) -> bytes:
        return as_text(damaged_value(sound, n[1])) if n[0] % 4 else damaged_bytes(as_text(sound), n[1])

    return make


def _of_services(root: Path) -> dict[str, Parser]:
    from tuition import board, jobs
    from tuition.evaluate.completion import answer_in
    from tuition.evaluate.judge import preference_in
    from tuition.launch import launch_file
    from tuition.recipe import load_recipe

    run = root / "runs" / "run"
    note = laid_file(run / "jobs", "train.json", _damaged_object(JOB))

    def look_at_jobs(path: Path) -> bool:
        found = jobs.find_all(run)
        jobs.at_work(run)
        board.list_runs(run.parent, starting=jobs.at_work)
        return not found

    def launch(path: Path) -> bool:
        load_recipe(path)
        return not [
            launch_file(kind, str(path), nodes=2, gpus=8) for kind in ("slurm", "kubernetes", "skypilot")
        ]

    return {
        "reply of a service": Parser(
            numbers,
            _damaged_object(REPLY),
            lambda sent: preference_in(answer_in(sent, "http://x")) == "unreadable",
        ),
        "job": Parser(numbers, note, look_at_jobs),
        "recipe to launch": Parser(
            numbers, laid_file(root, "launch.yaml", lambda n: damaged_bytes(RECIPE, n[1])), launch
        ),
    }


def _of_evaluation(root: Path) -> dict[str, Parser]:
    from tuition.data import Reading
    from tuition.data.learned import LearnedFrom
    from tuition.evaluate.answers import answer_book
    from tuition.evaluate.forgetting import General
    from tuition.evaluate.measures import find_metrics, split_names

    def lines(kind: str, name: str) -> Callable[[Damage], Path]:
        sound = b"".join(as_text(row) + b"\n" for row in LINES[kind])

        def make(n: Damage) -> bytes:
            if n[0] % 2:
                return damaged_bytes(sound, n[1])
            return b"".join(
                as_text(damaged_value(row, n[1] + at)) + b"\n" for at, row in enumerate(LINES[kind])
            )

        return laid_file(root, name, make)

    def learned(path: Path) -> bool:
        try:
            return "aa" * 32 in LearnedFrom(path)
        except ValueError:  # its word for a file that holds something else; whoever asks turns it into ours
            return True

    def general(value: Any) -> bool:
        try:
            General.from_json(value)
        except ValueError:  # likewise
            return True
        return False

    def answers(path: Path) -> bool:
        return not answer_book(path.parent, {}).found

    def schema(path: Path) -> bool:
        (metric,) = find_metrics(split_names(f"json_schema:{path}"))
        metric.measure('{"a": 1}', "", {})
        return False

    return {
        "answers of before": Parser(numbers, lines("answers", f"{hashlib.sha256(b'{}').hexdigest()[:16]}.jsonl"), answers),
        "prompts that were learned": Parser(numbers, lines("prompts", "prompts.jsonl"), learned),
        "general text of before": Parser(numbers, lambda n: damaged_value(LINES["general"][0], n[1]), general),
        "text to evaluate": Parser(
            numbers, laid_file(root, "text.txt", lambda n: damaged_bytes(TEXT, n[1])), lambda p: not list(Reading([str(p)]))
        ),
        "schema of a metric": Parser(numbers, laid_file(root, "schema.json", _damaged_object(SCHEMA)), schema),
    }  # fmt: skip


def _of_store(root: Path) -> dict[str, Parser]:
    from tuition.collect import Store, demonstrations, people, prompts, queue, reviewing
    from tuition.conversation import Message
    from tuition.data import Reading

    root.mkdir(parents=True, exist_ok=True)
    with Store(root / "sound.db") as store:
        asked = [prompts.NewPrompt((Message("user", "Say a"),), "made:1")]
        prompts.add(store, asked, source="made", licence="CC0-1.0", consent="made", by=None)
        writer, reviewer = (people.add_person(store, role, role, by=None) for role in ("writer", "reviewer"))
        place = queue.claim(store, writer.id)
        assert place is not None
        turns = [{"role": "assistant", "content": "a"}]
        sent = demonstrations.submit(store, place.id, writer.id, turns, post_key="1")
        reviewing.review(store, sent.id, reviewer.id, "accepted", rev=1)
        store.backup(root / "copy.db")
    sound = (root / "copy.db").read_bytes()

    def read(path: Path) -> bool:
        reading = Reading([str(path)])
        for conversation in reading:
            reading.ledger.keep(conversation.origin)
        with Store(path, read_only=True) as opened:
            people.people(opened)
        return bool(reading.ledger.findings)

    return {"store": Parser(numbers, laid_file(root, "team.db", lambda n: damaged_bytes(sound, n[1])), read)}
