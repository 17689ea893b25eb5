"""What the run ran with and how to repeat it: machine, settings, versions and commands."""

from __future__ import annotations

import reprlib
import shlex
from collections.abc import Callable

from tuition.evaluate.report.facts import Row, Run, inside, listed, number
from tuition.evaluate.report.words import duration, gibibytes, moment, plain, short, whole
from tuition.train.folder import RunFolder


def machine_facts(facts: Row) -> list[tuple[str, str]]:
    """Model, plan, speed and hardware, as far as they are known."""
    known = [
        ("Model", inside(facts, "model", "name")),
        ("Parameters", measured(facts, "model", "parameters", words=whole)),
        ("Of them trained", measured(facts, "model", "trainable_parameters", words=whole)),
        ("Method", inside(facts, "model", "method")),
        ("Precision", inside(facts, "model", "dtype")),
        ("Steps", measured(facts, "plan", "steps", words=short)),
        ("Epochs", measured(facts, "plan", "epochs", words=short)),
        ("Examples a step", measured(facts, "plan", "batch_size", words=short)),
        ("Steps an epoch", measured(facts, "plan", "steps_per_epoch", words=short)),
        ("Device", inside(facts, "hardware", "device")),
        ("Processor", inside(facts, "hardware", "cpu")),
        ("Cores", inside(facts, "hardware", "cores")),
        ("Memory", measured(facts, "hardware", "memory_bytes", words=gibibytes)),
        ("Peak memory", measured(facts, "result", "peak_memory_bytes", words=gibibytes)),
        ("Tokens trained on", measured(facts, "result", "tokens", words=whole)),
        ("Of them learned", measured(facts, "result", "learned_tokens", words=whole)),
        ("Training alone", measured(facts, "result", "seconds", words=duration)),
        ("Tokens a second", measured(facts, "result", "tokens_per_second", words=short)),
        ("Whole run", measured(facts, "seconds", words=duration)),
        ("Started", moment(facts.get("started"))),
        ("Finished", moment(facts.get("finished"))),
    ]
    return [(name, plain(value)) for name, value in known if value not in (None, "")]


def measured(facts: Row, *keys: str, words: Callable[[float], str]) -> str | None:
    """A number of the run in words, or None so that its line is left out."""
    value = number(facts, *keys)
    return None if value is None else words(value)


def settings(mapping: object) -> list[tuple[str, str]]:
    """Names and values of a flat mapping."""
    return [(str(key), setting(value)) for key, value in mapping.items()] if isinstance(mapping, dict) else []


def setting(value: object) -> str:
    """A value in words; a nested one is cut short, for YAML aliases can make a small file endless."""
    nested = isinstance(value, dict) or any(isinstance(item, dict | list) for item in listed(value))
    return reprlib.repr(value) if nested else plain(value)


def train_command(run: Run) -> str:
    """The command as it was given, or one that trains by the same recipe."""
    recipe = shlex.quote(str(RunFolder(run.folder).recipe))
    return str(run.facts.get("command") or f"tuition train {recipe}")


def install_command(facts: Row) -> str:
    """The pip command that brings the packages below tuition, as the index names them; empty without versions."""
    versions = facts.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    packages = {k: str(v).partition("+")[0] for k, v in versions.items() if k not in ("python", "tuition")}
    pins = (shlex.quote(f"{package}=={version}") for package, version in packages.items())
    return f"pip install {' '.join(pins)}" if packages else ""
