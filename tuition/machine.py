"""What this machine is and has: versions, device, memory, disk. Secrets are never read, only noticed."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any

from tuition.counting import counted

PACKAGES = ("tuition", "torch", "transformers", "peft", "tokenizers", "safetensors", "datasets", "numpy")
_DISK_WANTED_BYTES = 5e9


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def hardware(device: str) -> dict[str, Any]:
    """The machine, in the words of its operating system."""
    import torch

    return {
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else device,
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_bytes": _memory_bytes(),
        "system": f"{platform.system()} {platform.release()}",
    }


def examine() -> dict[str, Any]:
    """What `doctor` reports: each check with what was found, whether it is fine, and what to do if not."""
    import torch

    from tuition.train.model import choose_device

    device = choose_device("auto")
    checks = [_python(), *_packages(), _device(device, torch), _disk(), _tools()]
    return {
        "ok": all(c["ok"] for c in checks),
        "checks": checks,
        "hardware": hardware(str(device)),
        "versions": versions(),
    }


def _check(name: str, found: str, ok: bool = True, fix: str = "") -> dict[str, Any]:
    return {"name": name, "found": found, "ok": ok, "fix": "" if ok else fix}


def _python() -> dict[str, Any]:
    return _check(
        "python", platform.python_version(), sys.version_info >= (3, 11), "Use Python 3.11 or newer"
    )


def _packages() -> list[dict[str, Any]]:
    """Every dependency that the package declares, against the range it declares."""
    from packaging.requirements import Requirement

    checks = []
    for text in requires("tuition") or []:
        requirement = Requirement(text)
        if requirement.marker is not None and not requirement.marker.evaluate():
            continue
        fix = f"pip install '{requirement.name}{requirement.specifier}'"
        try:
            found = version(requirement.name)
        except PackageNotFoundError:
            checks.append(_check(requirement.name, "missing", False, fix))
            continue
        ok = requirement.specifier.contains(found, prereleases=True)
        checks.append(_check(requirement.name, found, ok, fix))
    return checks


def _device(device: Any, torch: Any) -> dict[str, Any]:
    if device.type != "cuda":
        return _check("device", f"{device.type}, {counted(torch.get_num_threads(), 'thread')}")
    free, total = torch.cuda.mem_get_info()
    bf16 = "bfloat16" if torch.cuda.is_bf16_supported() else "no bfloat16"
    return _check(
        "device", f"{torch.cuda.get_device_name()}, {free / 1e9:.0f} of {total / 1e9:.0f} GB free, {bf16}"
    )


def _disk() -> dict[str, Any]:
    free = shutil.disk_usage(Path.cwd()).free
    return _check(
        "disk",
        f"{free / 1e9:.0f} GB free here",
        free > _DISK_WANTED_BYTES,
        "Free some space: checkpoints need it",
    )


def _tools() -> dict[str, Any]:
    present = [tool for tool in ("ollama", "llama-server", "vllm") if shutil.which(tool)]
    token = "a hub token is set" if os.environ.get("HF_TOKEN") else "no hub token is set"
    return _check("beside", f"{', '.join(present) or 'no serving tool'}; {token}")


def _cpu_name() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _memory_bytes() -> int | None:
    with suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None
