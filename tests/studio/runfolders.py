"""A run folder as training leaves one, written by hand: pages are looked at without training first."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conftest import write_jsonl


def write_run(
    folder: Path, *, steps: int = 40, status: str = "finished", learning_rate: float = 2e-4
) -> Path:
    """Everything that the page of a run reads."""
    (folder / "model").mkdir(parents=True)
    facts: dict[str, Any] = {
        "name": folder.name, "command": f"tuition train --model starter --data team.db --output-dir outputs/{folder.name}",
        "started": "2026-11-26T03:00:00+00:00", "finished": "2026-11-26T03:01:00+00:00", "status": status, "seconds": 60.0,
        "model": {"name": "starter", "parameters": 2_557_632, "trainable_parameters": 2_557_632, "method": "full"},
        "data": {"rows_in": 40, "kept": 39, "rejected": 1, "examples": 39, "tokens": 600, "learned_tokens": 106},
        "plan": {"steps": steps, "epochs": 10, "batch_size": 16},
        "proof": [
            {"name": "ledger", "ok": True, "detail": "40 rows in = 39 kept + 1 rejected; 600 tokens"},
            {"name": "stop", "ok": True, "detail": "39 of 39 learned turns end with a stop token that is exported"},
            {"name": "disk", "ok": False, "detail": "checkpoints and model take more than is free"},
        ],
        "hardware": {"device": "cpu"}, "result": {"best_step": steps, "best_eval_loss": 0.2},
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps(facts))
    (folder / "recipe.yaml").write_text(
        f"model: starter\ndata: [team.db]\nlearning_rate: {learning_rate}\nepochs: 10\n"
    )
    (folder / "report.html").write_text("<!doctype html><title>report</title><p>Learned.</p>")
    updates = [
        {"step": n, "loss": 6 / n, "seconds": 0.2, "tokens_per_second": 900.0} for n in range(1, steps + 1)
    ]
    evaluations = [{"step": n, "eval_loss": 5 / (n + 1)} for n in range(0, steps + 1, 8)]
    write_jsonl(folder / "metrics.jsonl", sorted([*updates, *evaluations], key=lambda row: row["step"]))
    rejected = {
        "file": "a.jsonl",
        "line": 3,
        "fate": "rejected",
        "code": "D004",
        "reason": "no assistant turn",
    }
    write_jsonl(
        folder / "ledger.jsonl",
        [*({"file": "a.jsonl", "line": 1, "fate": "kept"} for _ in range(39)), rejected],
    )
    write_jsonl(folder / "demonstrations.jsonl", [
        {"file": "a.jsonl", "line": n, "prompt": f"What is {n} plus {n}?", "expected": str(2 * n), "before": 6.0 - n / 10,
         "after": 0.9 / n, "learned": True, "suspicions": ["its loss is far above the others'"] if n == 1 else []}
        for n in range(1, 13)
    ])  # fmt: skip
    return folder
