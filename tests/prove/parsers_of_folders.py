"""The parsers of whole folders: runs, manifests, checkpoints, prepared data, models and adapters."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.conftest import make_model
from tests.prove.inputs import Damage, Parser, as_text, damaged_bytes, damaged_value, laid_file, numbers
from tests.prove.sound_files import ADAPTER, RUN
from tuition import files


def of_runs(root: Path) -> dict[str, Parser]:
    run = root / "run"
    run.mkdir(parents=True, exist_ok=True)

    def lay_run(n: Damage) -> Path:
        chance = random.Random(n[1])
        for name, content in RUN.items():
            spoilt = chance.random() < 0.4
            way = chance.randrange(2**32) if spoilt else 0
            value = damaged_value(content, way) if spoilt else content
            if "." in name:
                text = as_text(value)
            else:
                name, rows = f"{name}.jsonl", value if isinstance(value, list) else [value]
                text = b"".join(as_text(row) + b"\n" for row in rows)
            (run / name).write_bytes(damaged_bytes(text, way) if chance.random() < 0.2 else text)
        return run

    def report(folder: Path) -> bool:
        from tuition.evaluate.report import write_report

        page = write_report(folder).read_text(encoding="utf-8")
        assert "<script>" not in page and "\x1b" not in page
        return False

    def resume(folder: Path) -> bool:
        from tuition.door import choose_folder, gather
        from tuition.train.fingerprint import refuse_changed
        from tuition.train.folder import RunFolder
        from tuition.training import begin_sitting, changed_surroundings

        facts = RunFolder(folder).read_facts()
        sitting: dict[str, Any] = {"status": "running", "versions": {}, "hardware": {}}
        begin_sitting(facts, sitting)
        changed_surroundings(facts, sitting)
        refuse_changed(facts.get("hashes"), {"data": "aa"}, {}, str(folder))
        given, _ = gather(folder, None, {})
        choose_folder(folder, given, resume=True)
        return False

    def journal(folder: Path) -> bool:
        from tuition.train.journal import Journal, Position

        path = folder / "metrics.jsonl"
        whole = Position(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        Journal(path, whole).write({"step": 4})
        return False

    return {
        "report of a run": Parser(numbers, lay_run, report),
        "resume of a run": Parser(numbers, lay_run, resume),
        "journal": Parser(numbers, lay_run, journal),
        "manifest": _manifest(root / "manifest"),
        "checkpoint": _checkpoint(root / "checkpoints"),
    }


def sealed(folder: Path) -> None:
    """Write the manifest that fits whatever lies in the folder, as an attacker would."""
    listed = {
        path.relative_to(folder).as_posix(): {
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size
        }
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }  # fmt: skip
    (folder / "manifest.json").write_bytes(files.json_bytes({"files": listed}))


def _manifest(root: Path) -> Parser:
    root.mkdir(parents=True, exist_ok=True)
    (root / "a.txt").write_text("a")
    sealed(root)
    sound = json.loads((root / "manifest.json").read_text())

    def make(n: Damage) -> bytes:
        value = damaged_value(sound, n[1])
        try:
            text = files.json_bytes(value)  # as it is written, so that what it says is looked at
        except ValueError:
            text = as_text(value)
        return damaged_bytes(text, n[1]) if n[0] % 2 else text

    lay = laid_file(root, "manifest.json", make)
    return Parser(numbers, lambda n: lay(n).parent, lambda folder: bool(files.manifest_faults(folder)))


def _checkpoint(root: Path) -> Parser:
    import torch

    from tuition.train.checkpoint import Identity, Progress, load_checkpoint, take_snapshot, write_snapshot
    from tuition.train.journal import Position
    from tuition.train.shelf import find_checkpoint  # fmt: skip

    identity = Identity("f" * 64, lambda step: "o" * 64)
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    parameters = dict(model.named_parameters())
    write_snapshot(
        root / "sound", take_snapshot(parameters, optimizer, Progress(step=1), identity, Position())
    )
    sound = {
        p.name: p.read_bytes() for p in (root / "sound" / "step-1").iterdir() if p.name != "manifest.json"
    }
    target = root / "damaged" / "step-1"
    target.mkdir(parents=True)

    def lay(n: Damage) -> Path:
        spoilt = sorted(sound)[n[0] % len(sound)]
        for name, content in sound.items():
            if name == spoilt:
                is_object = name.endswith(".json") and n[1] % 2
                content = (
                    as_text(damaged_value(json.loads(content), n[1]))
                    if is_object
                    else damaged_bytes(content, n[1])
                )
            (target / name).write_bytes(content)
        sealed(target)
        return root / "damaged"

    def read(folder: Path) -> bool:
        state, chance = torch.get_rng_state(), random.getstate()
        try:
            found = find_checkpoint(folder, identity.fingerprint)
            if found.folder is None:
                return bool(found.sentences)
            load_checkpoint(found.folder, parameters, optimizer, identity)
        finally:
            torch.set_rng_state(state)
            random.setstate(chance)
            optimizer.state.clear()
        return False

    return Parser(numbers, lay, read)


def of_prepared(root: Path) -> dict[str, Parser]:
    import numpy as np

    from tuition.batch.prepared import PreparedKey, open_prepared, write_prepared
    from tuition.conversation import Rendered
    from tuition.errors import Origin

    key = PreparedKey((("d", "aa"),), (("h", "bb"),), "t", "cc", {"seed": 0}, "dd")
    ids = np.arange(6, dtype=np.int32)
    examples = [
        (side, Rendered(ids, np.array([0, 0, 1, 1, 1, 1], dtype=np.float32), Origin("d.jsonl", line)))
        for side in ("train", "validation")
        for line in (1, 2, 3)
    ]
    folder = write_prepared(root / "prepared", key, examples, records={"ledger": [{"a": 1}]}).folder  # type: ignore[arg-type]
    sound = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    facts = next(name for name in sound if name.endswith(".json") and b'"sides"' in sound[name])

    def lay(n: Damage) -> Path:
        spoilt = facts if n[0] % 2 else sorted(sound)[n[0] % len(sound)]
        for name, content in sound.items():
            if name == spoilt:
                by_value = name.endswith(".json") and n[1] % 3
                content = (
                    as_text(damaged_value(json.loads(content), n[1]))
                    if by_value
                    else damaged_bytes(content, n[1])
                )
            (folder / name).write_bytes(content)
        if spoilt != "manifest.json":
            sealed(folder)
        return folder

    def read(place: Path) -> bool:
        prepared = open_prepared(place)
        for side in (prepared.train, prepared.validation):
            for number in range(min(len(side), 10)):
                side[number].ids.sum()
            if len(side):
                len(side.shortest)
        list(prepared.records("ledger"))
        return False

    return {"prepared data": Parser(numbers, lay, read)}


def of_models(root: Path) -> dict[str, Parser]:
    from tuition.render import load_tokenizer, open_model
    from tuition.train.adapterfolder import read_adapter
    from tuition.train.model import load_config, quiet_transformers

    quiet_transformers()
    sound = make_model(root / "sound")
    load_tokenizer(str(sound)), load_config(str(sound))  # imports take no part in the time

    def spoilt(name: str, *, by_value: bool = True, whole: bool = True) -> Callable[[Damage], Path]:
        folder = root / "models" / name
        if whole:
            shutil.copytree(sound, folder, dirs_exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        content = (sound / name).read_bytes() if (sound / name).exists() else as_text(ADAPTER)
        value = json.loads(content) if by_value else None

        def lay(n: Damage) -> Path:
            if by_value and n[0] % 4:
                (folder / name).write_bytes(as_text(damaged_value(value, n[1])))
            else:
                (folder / name).write_bytes(damaged_bytes(content, n[1]))
            return folder

        return lay

    def door(folder: Path) -> bool:
        return not open_model(str(folder), weights=True)

    def tokenizer(folder: Path) -> bool:
        return not load_tokenizer(str(folder)).encode("What is it?")

    def config(folder: Path) -> bool:
        return not load_config(str(folder))

    return {
        "config.json": Parser(numbers, spoilt("config.json"), config),
        "generation_config": Parser(numbers, spoilt("generation_config.json"), door),
        "safetensors header": Parser(numbers, spoilt("model.safetensors", by_value=False), door),
        "tokenizer_config": Parser(numbers, spoilt("tokenizer_config.json"), tokenizer),
        "tokenizer.json": Parser(numbers, spoilt("tokenizer.json"), tokenizer),
        "adapter_config.json": Parser(numbers, spoilt("adapter_config.json", whole=False), lambda f: not read_adapter(f)),
    }  # fmt: skip
