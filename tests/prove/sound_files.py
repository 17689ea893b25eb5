"""Sound files, what can be done to them, and the parsers that must bear it: one row of `make_parsers` each."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from tests.conftest import CHAT, make_model, make_tokenizer
from tuition.errors import UserError

Damage = tuple[int, int]  # the number of a sound input, and of the way it is damaged


@dataclass(frozen=True)
class Parser:
    """One parser under fire.

    Attributes:
        inputs: what is drawn.
        lay: makes what the parser reads (files, mostly); takes no part in the time.
        read: the parser; returns whether it refused, or raises UserError.
        limit_seconds: most CPU time of one input.
        cost: how many times dearer an input is than a row of text: so many fewer are fed.
    """

    inputs: st.SearchStrategy[Any]
    lay: Callable[[Any], Any]
    read: Callable[[Any], object]
    limit_seconds: float = 0.1
    cost: int = 1


# --- what is done to bytes and to values ---

FRAGMENTS = [
    b"", b"\0", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n", b"\r", b",", b'"', b"\\", b"{", b"}", b"[",
    b"]", b":", b"{{", b"}}", b"{%", b"%}", b"null", b"NaN", b"-1", b"1e999", b"9" * 5000, b"[" * 3000, b"'", b"&a", b"*a",
    b"!!python/object:os.system", b"!!int", b"!!timestamp", b"<<:", b"- ", b"? ", b"2026-13-45", b"\x1b[2J",
    "\u202e".encode(), b"../", b"%2e%2e%2f", b"<script>", b"\x80\x04", b"PAR1", b"\x28\xb5\x2f\xfd", b"a" * 2000,
]  # fmt: skip
VALUES: list[Any] = [
    None, True, False, 0, -1, 1, 3, 2**31, 2**63, 10**30, -(10**30), 0.5, 1e308, float("nan"), float("inf"), "", "x",
    "\0", "\ud800", "\x1b[2J", "../../etc/passwd", "/dev/zero", "a" * 5000, "9" * 5000, "NaN", "<script>", [], {}, [[]],
    [None], ["x"], [1, 2], {"a": 1}, {"": {"": {}}}, {"content": None},
]  # fmt: skip
numbers = st.tuples(st.integers(0, 63), st.integers(0, 2**40))


def damaged_bytes(sound: bytes, way: int) -> bytes:
    """The bytes after one to six cuts, flips, repeats and insertions."""
    chance = random.Random(way)
    content = bytearray(sound)
    for _ in range(chance.randint(0, 6)):
        place = chance.randint(0, len(content))
        length = chance.choice([1, 1, 2, 8, 64, len(content) // 2])
        kind = chance.randrange(6)
        if kind == 0:
            del content[place : place + length]
        elif kind == 1 and place < len(content):
            content[place] ^= 1 << chance.randrange(8)
        elif kind == 2:
            content[place:place] = content[place : place + length]
        elif kind == 3:
            content[place : place + length] = chance.choice(FRAGMENTS)
        elif kind == 4:
            content[place:place] = chance.choice(FRAGMENTS)
        else:
            content[place : place + length] = chance.randbytes(length % 100)
    return bytes(content)


def damaged_value(sound: Any, way: int) -> Any:
    """The JSON value with one to four of its parts replaced, removed, moved or said twice."""
    chance = random.Random(way)
    value = json.loads(json.dumps(sound))
    for _ in range(chance.randint(0, 4)):
        places = list(_places(value))
        if not places or chance.random() < 0.01:
            return chance.choice(VALUES)
        holder, key = chance.choice(places)
        kind = chance.randrange(5)
        if kind == 0:
            del holder[key]
        elif kind == 1 and isinstance(holder, list):
            holder.append(holder[key])
        elif kind == 2 and isinstance(holder, dict):
            holder[chance.choice(["x", "\ud800", "", "../x", "0"])] = holder[key]
        elif kind == 3:
            other, place = chance.choice(places)
            holder[key] = json.loads(json.dumps(other[place]))
        else:
            holder[key] = chance.choice(VALUES)
    return value


def _places(value: Any) -> Any:
    """Every (container, key) within a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def as_text(value: Any) -> bytes:
    return json.dumps(value).encode()


# --- sound inputs ---

ROWS = [
    {"prompt": "a", "completion": "b"},
    {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "weight": 1, "group": "g"},
    {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
    {"instruction": "a", "input": "b", "output": "c", "id": "7"},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}]}, {"role": "assistant", "content": "",
     "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
     {"role": "tool", "content": "x", "tool_call_id": "1"}, {"role": "assistant", "content": "b"}],
     "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]},
]  # fmt: skip
RECIPE = (
    b"# a comment\nmodel: starter\ndata: [a.jsonl, b.jsonl]\nepochs: 3\nlearning_rate: 2e-4\nmax_length: auto\n"
    b"target_modules: [q_proj, v_proj]\nmethod: lora\nval_split: 0.05\nseed: 0\ntemplate_date: 2026-01-31\noutput_dir: out\n"
    b"mapping: {prompt: question, completion: answer}\nspan_markers: ['<a>', '</a>']\n"
)
TEMPLATES = [
    CHAT,
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ m.content | trim }}{% else %}{% generation %}"
    "{{ m['content'] }}{% endgeneration %}{% endif %}{% endfor %}",
    "{% macro f(x) %}{{ x.content ~ '' }}{% endmacro %}{% set ns = namespace(a=1) %}{% for m in messages %}"
    "{% set ns.a = ns.a + 1 %}{{ f(m) }}{{ loop.index0 }}{% endfor %}{{ tools | tojson }}{{ strftime_now('%Y') }}",
]
FACTS = {
    "name": "run", "command": "tuition train", "working_folder": ".", "started": "2026-01-31T00:00:00+00:00",
    "status": "finished", "versions": {"python": "3.11"}, "hardware": {"device": "cpu", "cores": 2}, "hashes": {"data": "aa"},
    "model": {"name": "m", "parameters": 10, "trainable_parameters": 10, "method": "full", "dtype": "float32", "new_tokens": []},
    "data": {"rows_in": 10, "kept": 9, "rejected": 1, "left_out": 0, "truncated": 0, "examples": 9, "tokens": 90,
             "learned_tokens": 40, "longest_tokens": 12, "length_histogram": {"edges": [0, 5, 12], "counts": [4, 5]}},
    "plan": {"steps": 4, "epochs": 2.0, "batch_size": 2, "steps_per_epoch": 2}, "seconds": 3.0,
    "proof": [{"name": "stop", "ok": True, "detail": "all end"}],
    "result": {"step": 4, "tokens": 90, "seconds": 2.0, "best_step": 2, "best_eval_loss": 1.5, "tokens_per_second": 45.0},
}  # fmt: skip
METRICS = [
    {"step": n, "loss": 2.0 / n, "learning_rate": 1e-4, "grad_norm": 0.5, "tokens": 9} for n in (1, 2, 3, 4)
]
METRICS += [{"step": 2, "eval_loss": 1.5, "eval_bits_per_byte": 0.9, "eval_tokens": 12}]
RUN = {
    "run.json": FACTS,
    "metrics": METRICS,
    "ledger": [{"file": "d.jsonl", "line": 1, "fate": "kept", "tokens": 9}, {"file": "d", "line": 2, "fate": "rejected",
               "code": "D004", "reason": "no answer"}],
    "findings": [{"code": "D004", "severity": "error", "file": "d", "line": 2, "message": "m", "fix": "f"}],
    "samples": [{"file": "d", "line": 1, "prompt": "p", "expected": "e", "base": "b", "tuned": "t"}],
    "example.json": {"file": "d", "line": 1, "tokens": [{"text": "a", "supervised": 1.0, "special": False}]},
    "evaluation.json": {"comparisons": [{"metric": "exact_match", "base": {"score": 0.1, "low": 0, "high": 1, "count": 9},
                        "tuned": {"score": 0.5, "low": 0, "high": 1, "count": 9}, "pairs": []}]},
    "recipe.yaml": {"model": "m", "data": ["d"], "seed": 7, "max_length": 12, "output_dir": "run"},
}  # fmt: skip


# --- the parsers ---


def make_parsers(root: Path) -> dict[str, Parser]:
    """Every parser, with its own folder below `root`."""
    found: dict[str, Parser] = {}
    for make in (_of_data, _of_settings, _of_runs, _of_prepared, _of_templates, _of_models):
        found |= make(root)
    return found


def _file(root: Path, name: str, make: Callable[[Any], bytes]) -> Callable[[Any], Path]:
    root.mkdir(parents=True, exist_ok=True)

    def lay(value: Any) -> Path:
        path = root / name
        path.write_bytes(make(value))
        return path

    return lay


def _of_data(root: Path) -> dict[str, Parser]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    lines = b"".join(as_text(row) + b"\n" for row in ROWS)
    table = pa.table({"prompt": ["a", "b"], "completion": ["c", "d"], "weight": [1.0, 2.0]})
    parquet, arrow = io.BytesIO(), io.BytesIO()
    pq.write_table(table, parquet)
    with pa.ipc.new_file(arrow, table.schema) as writer:
        writer.write_table(table)
    zstd = pa.compress(lines, codec="zstd", asbytes=True)
    sound = {
        "rows.jsonl": lines, "rows.json": as_text(ROWS), "rows.csv": b'prompt,completion\n"a, b",c\nd,"e\nf"\n',
        "rows.tsv": b"prompt\tcompletion\na\tb\n", "rows.parquet": parquet.getvalue(), "rows.arrow": arrow.getvalue(),
        "rows.jsonl.gz": gzip.compress(lines, mtime=0), "rows.jsonl.zst": zstd,
    }  # fmt: skip

    def read(path: Path) -> bool:
        from tuition.data import Reading

        reading = Reading([str(path)])
        for conversation in reading:
            reading.ledger.keep(conversation.origin)
        reading.ledger.check_balance()
        json.dumps(reading.ledger.summary())
        return bool(reading.ledger.rejected or any(f.severity == "error" for f in reading.ledger.findings))

    def of(name: str, content: bytes) -> Parser:
        return Parser(numbers, _file(root / "data", name, lambda n: damaged_bytes(content, n[1])), read)

    found = {name: of(name, content) for name, content in sound.items()}
    shaped = _file(
        root / "data", "shaped.jsonl", lambda n: as_text(damaged_value(ROWS[n[0] % len(ROWS)], n[1])) + b"\n"
    )
    return {**found, "rows of any shape": Parser(numbers, shaped, read)}


def _of_settings(root: Path) -> dict[str, Parser]:
    from tuition.recipe import Recipe, load_recipe, make_recipe

    fields = sorted(Recipe.model_fields)

    def settings_of(n: Damage) -> dict[str, Any]:
        chance = random.Random(n[1])
        given = {"model": "m", "data": "d"}
        return given | {chance.choice(fields): chance.choice(VALUES) for _ in range(1 + n[0] % 4)}

    text = _file(root / "recipe", "recipe.yaml", lambda n: damaged_bytes(RECIPE, n[1]))
    return {
        "recipe file": Parser(numbers, text, lambda path: load_recipe(path) and False),
        "recipe values": Parser(numbers, settings_of, lambda given: make_recipe(given).to_yaml() and False),
    }


def _of_runs(root: Path) -> dict[str, Parser]:
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
        from tuition.train.journal import Journal, Position, read_journal

        path = folder / "metrics.jsonl"
        for _ in read_journal(path):
            pass
        whole = Position(path.stat().st_size, hashlib.sha256(path.read_bytes()).hexdigest())
        Journal(path, whole).write({"step": 4})
        return False

    return {
        "report of a run": Parser(numbers, lay_run, report, cost=4),
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
    (folder / "manifest.json").write_bytes(as_text({"files": listed}))


def _manifest(root: Path) -> Parser:
    from tuition.files import manifest_faults

    root.mkdir(parents=True, exist_ok=True)
    (root / "a.txt").write_text("a")
    sealed(root)
    sound = json.loads((root / "manifest.json").read_text())

    def make(n: Damage) -> bytes:
        text = as_text(damaged_value(sound, n[1]))
        return damaged_bytes(text, n[1]) if n[0] % 2 else text

    lay = _file(root, "manifest.json", make)
    return Parser(numbers, lambda n: lay(n).parent, lambda folder: bool(manifest_faults(folder)))


def _checkpoint(root: Path) -> Parser:
    import torch

    from tuition.train.checkpoint import (
        Identity,
        Progress,
        find_checkpoint,
        load_checkpoint,
        take_snapshot,
        write_snapshot,
    )  # fmt: skip
    from tuition.train.journal import Position

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


def _of_prepared(root: Path) -> dict[str, Parser]:
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


def _of_templates(root: Path) -> dict[str, Parser]:
    from tuition.render.template import ChatTemplate, TemplateRefusal, choose_template, on_day

    tokenizer = make_tokenizer(template=None)
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]

    def source(n: Damage) -> bytes:
        return damaged_bytes(TEMPLATES[n[0] % len(TEMPLATES)].encode(), n[1])

    def render(template: ChatTemplate) -> bool:
        try:
            on_day(template, "2026-01-31").text(messages, [], add_generation_prompt=True)  # type: ignore[union-attr]
        except TemplateRefusal:
            return True
        return False

    lay = _file(root / "templates", "chat_template.jinja", source)
    return {
        "template": Parser(
            numbers,
            lambda n: ChatTemplate(source(n).decode("utf-8", "replace"), {"bos_token": "<s>"}, "fuzz"),
            render,
            limit_seconds=2.5,  # the bound of one rendering is two seconds of its own
        ),
        "template file": Parser(
            numbers,
            lay,
            lambda path: render(choose_template(str(path), tokenizer)),
            limit_seconds=2.5,  # type: ignore[arg-type]
        ),
    }


def _of_models(root: Path) -> dict[str, Parser]:
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
        "config.json": Parser(numbers, spoilt("config.json"), config, cost=2),
        "generation_config": Parser(numbers, spoilt("generation_config.json"), door),
        "safetensors header": Parser(numbers, spoilt("model.safetensors", by_value=False), door),
        "tokenizer_config": Parser(numbers, spoilt("tokenizer_config.json"), tokenizer, limit_seconds=0.5, cost=20),
        "tokenizer.json": Parser(numbers, spoilt("tokenizer.json"), tokenizer, limit_seconds=0.5, cost=20),
        "adapter_config.json": Parser(numbers, spoilt("adapter_config.json", whole=False), lambda f: not read_adapter(f)),
    }  # fmt: skip


ADAPTER = {
    "peft_type": "LORA", "base_model_name_or_path": "b", "revision": None, "r": 8, "lora_alpha": 16, "task_type": "CAUSAL_LM",
    "target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 4}, "exclude_modules": "(a|b).*c", "auto_mapping": None,
}  # fmt: skip

__all__ = ["Parser", "UserError", "make_parsers"]
