"""Files that lie elsewhere: buckets and web servers, read piece by piece through fsspec and never copied here whole.

What was read is known again by what the server says of it (size, ETag, version, time of change), and only where it
says nothing by a hash over all of it. No credential stands in a name: names go into ledgers, reports and run.json.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import parse_qsl, urlsplit

from tuition.counting import counted
from tuition.errors import UserError
from tuition.redact import redact

# Protocol → what `pip install` brings it; empty: it is always there.
PROTOCOLS: dict[str, str] = {
    "http": "'fsspec[http]'",
    "https": "'fsspec[http]'",
    "s3": "'tuition[s3]'",
    "gs": "'tuition[gcs]'",
    "gcs": "'tuition[gcs]'",
    "memory": "",
}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.:-]*)://")
_IPV6 = re.compile(r"://\[[0-9A-Fa-f:.]+\]")  # these brackets are no pattern
_SECRET_KEY = re.compile(r"sig|token|credential|secret|passw|pwd|key|auth|jwt|hmac", re.IGNORECASE)
_NO_SECRETS = {"author", "authors", "design", "keyword", "keywords"}  # words that only look like it
# What file systems call the version of a file, in their several spellings.
_VERSIONS = (
    "ETag", "etag", "Content-MD5", "Digest", "md5Hash", "crc32c", "generation", "VersionId", "version_id",
    "Last-Modified", "LastModified", "last_modified", "mtime", "updated", "created",
)  # fmt: skip
_SECONDS_BETWEEN_TRIES = (0.5, 2.0, 8.0)
_BLOCK_BYTES = 4 << 20
_BUFFER_BYTES = 1 << 20

_T = TypeVar("_T")


def is_remote(name: str) -> bool:
    """Whether a name is an address of something that lies elsewhere; `file://` is a file of this machine."""
    written = _URL.match(name)
    return written is not None and written[1].lower() != "file"


def local_name(name: str) -> str:
    """The name without `file://` before it."""
    return name[len("file://") :] if name[:7].lower() == "file://" else name


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file that lies elsewhere."""

    url: str

    @property
    def name(self) -> str:
        """The last part of its path, as the suffix is looked for in it."""
        return urlsplit(self.url).path.rsplit("/", 1)[-1]

    def size(self) -> int | None:
        """Bytes, where the server says how many.

        Raises:
            UserError: it is not there, or the server does not answer.
        """
        size = self._info().get("size")
        return None if size is None else int(size)

    def open(self) -> BinaryIO:
        """Its bytes, read a few megabytes at a time; what fails is tried again where it failed.

        Raises:
            UserError: as `size`, also while it is read.
        """
        return cast(BinaryIO, io.BufferedReader(_Patient(self), _BUFFER_BYTES))

    def sha256(self) -> str:
        """A hash by which it is known again: of its address, size and version; of its bytes where it has none.

        Raises:
            UserError: as `size`.
        """
        info = self._info()
        version = {key: str(info[key]) for key in _VERSIONS if info.get(key) is not None}
        if not version:
            with self.open() as stream:
                return hashlib.file_digest(cast(io.BufferedReader, stream), "sha256").hexdigest()
        known = json.dumps([self.url, info.get("size"), version], sort_keys=True)
        return hashlib.sha256(known.encode("utf-8", "surrogatepass")).hexdigest()

    def _info(self) -> dict[str, Any]:
        system, path = _system(self.url)

        def ask() -> dict[str, Any]:
            system.invalidate_cache()  # a listing that is remembered would hide a change
            return dict(system.info(path))

        return _ask(self.url, ask)


def remote_files(spec: str) -> list[str]:
    """The addresses that one address or pattern (`*`, `[…]`, `**`) stands for, sorted.

    Raises:
        UserError: nothing is there, the protocol is not read here, or a secret stands in the address.
    """
    _refuse_secrets(spec)
    system, path = _system(spec)
    if not re.search(r"[*\[]", _IPV6.sub("://", spec)):
        RemoteFile(spec).size()  # is it there?
        return [spec]
    found = sorted(_ask(spec, lambda: system.glob(path)))
    if not found:
        raise UserError("no file matches the pattern", where=spec, next_step="List the folder and mend it.")
    return [str(system.unstrip_protocol(name)) for name in found]


def _opens_a_door(pair: tuple[str, str]) -> bool:
    key, _ = pair
    return bool(_SECRET_KEY.search(key)) and key.lower() not in _NO_SECRETS


def _refuse_secrets(url: str) -> None:
    """Names of data are written down in many places, so none may hold what opens a door."""
    parts = urlsplit(url)
    if parts.username or any(map(_opens_a_door, parse_qsl(parts.query))):
        raise UserError(
            "the address holds a password or a signature, and names of data are written into ledgers and reports",
            where=f"{parts.scheme}://{parts.hostname or ''}{parts.path}",
            next_step="Give credentials as the service's own tools read them: environment, ~/.aws, ~/.netrc or "
            "gcloud auth application-default login.",
        )


def _system(url: str) -> tuple[Any, str]:
    """The file system of an address, and its path in it.

    Raises:
        UserError: the protocol is not read here, or its package is missing.
    """
    from fsspec.core import url_to_fs

    written = _URL.match(url)
    protocol = written[1].lower() if written else ""
    if protocol not in PROTOCOLS:
        raise UserError(
            f"{protocol}:// is not read", where=url, next_step=f"Use {', '.join(PROTOCOLS)} or a local file."
        )
    try:
        system, path = url_to_fs(url, **_options(protocol))
    except ImportError:
        step = f"pip install {PROTOCOLS[protocol]}"
        raise UserError(
            f"{protocol}:// needs a package that is not here", where=url, next_step=step
        ) from None
    return system, str(path)


def _options(protocol: str) -> dict[str, Any]:
    if protocol not in ("http", "https"):
        return {}
    import aiohttp

    patience = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    return {"client_kwargs": {"trust_env": True, "timeout": patience}}  # proxies and ~/.netrc


def _ask(url: str, question: Callable[[], _T]) -> _T:
    """The answer, asked for several times: networks fail for a moment more often than for good.

    Raises:
        UserError: it is not there, or there was no answer.
    """
    for pause in (*_SECONDS_BETWEEN_TRIES, None):
        try:
            return question()
        except FileNotFoundError:
            step = "Check the spelling, and that your credentials may read it."
            raise UserError(
                "there is no such file, or it may not be read", where=url, next_step=step
            ) from None
        except Exception as error:  # each file system has exceptions of its own
            if pause is None:
                reason = redact(str(error).strip().split("\n")[0][:200]) or type(error).__name__
                raise UserError(
                    f"cannot be read ({reason}), tried {len(_SECONDS_BETWEEN_TRIES) + 1} times",
                    where=url,
                    next_step="Check the network and your credentials; then start again, and what is done stays done.",
                ) from None
            time.sleep(pause)
    raise AssertionError("the last try returns or raises")


class _Patient(io.RawIOBase):
    """The bytes of a remote file, with a place of its own: a connection that breaks is made anew and goes on there.

    Servers that send files from the beginning only are read so, without parts.
    """

    def __init__(self, file: RemoteFile) -> None:
        self._url, self._size = file.url, file.size()
        self._system, self._path = _system(file.url)
        self._in_parts = self._size is not None
        self._stream: Any = None
        self._at = 0  # where the stream stands
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END and self._size is None:
            raise io.UnsupportedOperation("the server does not say where the file ends")
        begin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size or 0}[whence]
        self._position = max(0, begin + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        content = _ask(self._url, lambda: self._read(len(buffer)))
        buffer[: len(content)] = content
        self._position += len(content)
        self._at = self._position
        return len(content)

    def _read(self, count: int) -> bytes:
        if self._size is not None and self._position >= self._size:
            return b""
        try:
            content = bytes(self._stream_at_position().read(count))
            if not content and self._size is not None:
                raise OSError(f"it ended after {self._position:,} of {self._size:,} bytes")
        except Exception as error:
            self._let_go()
            if self._in_parts and isinstance(error, ValueError) and "range" in str(error):
                self._in_parts = False
                return self._read(count)
            raise
        return content

    def _stream_at_position(self) -> Any:
        if not self._in_parts and self._at > self._position:
            self._let_go()
        if self._stream is None:
            blocks = (
                {"block_size": _BLOCK_BYTES, "cache_type": "readahead"}
                if self._in_parts
                else {"block_size": 0}
            )
            self._stream, self._at = self._system.open(self._path, "rb", **blocks), 0
        if self._in_parts:
            self._stream.seek(self._position)
        while self._at < self._position and not self._in_parts:
            passed = len(self._stream.read(min(_BUFFER_BYTES, self._position - self._at)))
            if not passed:
                raise OSError(f"it ended after {counted(self._at, 'byte')}")
            self._at += passed
        return self._stream

    def _let_go(self) -> None:
        stream, self._stream, self._at = self._stream, None, 0
        if stream is not None:
            stream.close()

    def close(self) -> None:
        self._let_go()
        super().close()
