"""What libraries do while they are imported."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

# Stands where the package stands that fetches compiled code from the hub.
KERNELS = """
import pathlib
def get_kernel(*_, **__): pathlib.Path(__file__).with_name("was_asked").touch()
"""
LAY_LORA_OVER = """
import sys, torch
from tuition.recipe import AdapterSettings
from tuition.train.adapters import ADAPTERS
from transformers import LlamaConfig, LlamaForCausalLM
sizes = dict(hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=8)
ADAPTERS["lora"](LlamaForCausalLM(LlamaConfig(**sizes)), AdapterSettings(), ())
assert "peft.tuners.lora.bnb" in sys.modules, "peft has looked for layers in 4 bits"
"""


def test_no_library_fetches_code_while_an_adapter_is_laid_over_a_model(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    package = tmp_path / "kernels"
    package.mkdir()
    (package / "__init__.py").write_text(KERNELS)
    path = os.pathsep.join([str(tmp_path), str(Path.cwd())])
    done = subprocess.run(
        [sys.executable, "-c", f"{LAY_LORA_OVER}\nimport kernels  # other code finds it"],
        env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not (package / "was_asked").exists()


def test_only_one_file_imports_what_may_fetch_code() -> None:
    room = Path("tuition")
    others = [p for p in room.rglob("*.py") if p.name not in ("libraries.py", "reader.py", "card.py")]
    words = ("import peft", "from peft", "import bitsandbytes", "from bitsandbytes")
    assert not [
        p for p in others if any(line.strip().startswith(words) for line in p.read_text().splitlines())
    ]
