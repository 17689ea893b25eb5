"""To the Hugging Face hub, through its own library. The token is read where that library keeps it, and never shown."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuition.errors import UserError, one_line


@dataclass(frozen=True, slots=True)
class Pushed:
    """What was, or would be, uploaded: each file with its bytes; `address` is None after a dry run."""

    to: str
    files: list[tuple[str, int]]
    address: str | None

    def to_json(self) -> dict[str, Any]:
        """The object that `push --json` prints."""
        listed = [{"name": name, "bytes": size} for name, size in self.files]
        return {"to": self.to, "files": listed, "address": self.address}


def check_name(to: str) -> None:
    """Refuse a name that the hub would not take.

    Raises:
        UserError: it is not owner/name as the hub allows it.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    try:
        validate_repo_id(to)
        if to.count("/") != 1:
            raise HFValidationError("it has no owner")
    except HFValidationError as error:
        raise UserError(
            f"is not a name on the hub ({one_line(error)})", where=to, next_step="Give owner/name"
        ) from None


def token_or_refuse() -> str:
    """The token of whoever is logged in.

    Raises:
        UserError: nobody is.
    """
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise UserError(
            "nobody is logged in to the Hugging Face hub", next_step="hf auth login, or set $HF_TOKEN"
        )
    return token


def refuse_local_base(folder: Path) -> None:
    """An adapter names its base; a folder of this machine means nothing to whoever downloads it.

    Raises:
        UserError: the base is such a folder.
    """
    config = folder / "adapter_config.json"
    base = (
        json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"] if config.exists() else None
    )
    if base is not None and Path(base).is_dir():
        raise UserError(
            "the adapter's base is a folder of this machine, which nobody else has",
            where=str(base),
            next_step="Push the merged model (--format hf), or train from a name on the hub",
        )


def files_in(folder: Path) -> list[tuple[str, int]]:
    """Every file below a folder, with its bytes."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return [(path.relative_to(folder).as_posix(), path.stat().st_size) for path in found]


def upload(folder: Path, to: str, *, token: str, private: bool) -> str:
    """Upload a folder in one commit; the address of the model.

    Raises:
        UserError: the hub refused, in its own words.
    """
    from huggingface_hub import HfApi

    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token)
    try:
        address = hub.create_repo(to, private=private, exist_ok=True)
        hub.upload_folder(repo_id=to, folder_path=folder, commit_message="Export by tuition")
    except Exception as error:  # its HTTP library's, its own, and those of the network
        raise UserError(
            f"the hub refused ({_without(token, error)})",
            where=to,
            next_step="See that the token may write there, and try again",
        ) from None
    return str(address)


def _without(token: str, error: Exception) -> str:
    """What the hub said, on one line; the token is taken out first, as a cut through it would show a part."""
    return one_line(Exception(str(error).replace(token, "…")), 300)
