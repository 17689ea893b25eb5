"""Files that lie elsewhere are read as those of this machine are, from a server that is as slow and rude as servers are."""

from __future__ import annotations

import gzip
import io
import json
import os
import random
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tuition.data import content_sha256, find_sources, read_rows, remote
from tuition.data.remote import RemoteFile, remote_files
from tuition.errors import UserError

ROWS = [
    {"prompt": f"question {n}", "completion": " ".join(map(str, random.Random(n).sample(range(10**6), 30)))}
    for n in range(200)
]


class Server(SimpleHTTPRequestHandler):
    """Files of a folder; `breaks` connections are closed in the middle of a file, and `parts` may be asked for."""

    breaks = 0
    parts = False

    def log_message(self, *_: Any) -> None: ...

    def copyfile(self, source: Any, outputfile: Any) -> None:
        content = source.read()
        if type(self).breaks and len(content) > 1000:
            type(self).breaks -= 1
            content = content[: len(content) // 2]
        outputfile.write(content)

    def send_head(self) -> Any:
        asked = self.headers.get("Range")
        if not asked or not type(self).parts:
            return super().send_head()
        content = Path(self.translate_path(self.path)).read_bytes()
        first, last = (int(end) for end in asked.removeprefix("bytes=").split("-"))
        last = min(last, len(content) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        return io.BytesIO(content[first : last + 1])


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(remote, "_SECONDS_BETWEEN_TRIES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(Server, "breaks", 0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, directory=str(tmp_path)))
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def write_all_kinds(folder: Path) -> list[str]:
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    text = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
    table = pa.Table.from_pylist(ROWS)
    (folder / "a.jsonl").write_bytes(text)
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(text))
    with pa.output_stream(str(folder / "c.jsonl.zst"), compression="zstd") as stream:
        stream.write(text)
    pyarrow.parquet.write_table(table, folder / "d.parquet")
    pyarrow.feather.write_feather(table, str(folder / "e.feather"))
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("parts", [True, False])
def test_every_kind_of_file_has_the_rows_of_the_local_one(
    served: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: bool
) -> None:
    monkeypatch.setattr(Server, "parts", parts)
    monkeypatch.setattr(remote, "_BLOCK_BYTES", 8192)
    names = write_all_kinds(tmp_path)
    found = find_sources([f"{served}/*"]).train
    assert found == tuple(f"{served}/{name}" for name in names)
    for url in found:
        rows = list(read_rows(url))
        assert [row.value for row in rows] == ROWS
        assert {row.origin.file for row in rows} == {url}


def test_a_connection_that_breaks_is_taken_up_where_it_broke(served: str, tmp_path: Path) -> None:
    names = write_all_kinds(tmp_path)
    for name in names:
        Server.breaks = 2
        assert [row.value for row in read_rows(f"{served}/{name}")] == ROWS
        assert Server.breaks == 0


def test_a_server_that_gives_half_a_file_is_named_and_no_row_is_made_up(served: str, tmp_path: Path) -> None:
    write_all_kinds(tmp_path)
    Server.breaks = 1000
    with pytest.raises(UserError, match="tried 4 times") as caught:
        list(read_rows(f"{served}/a.jsonl"))
    assert caught.value.where == f"{served}/a.jsonl"


def test_a_remote_file_is_known_again_by_its_version(served: str, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "a", "completion": "b"}\n')
    os.utime(file, (1e9, 1e9))
    before = content_sha256(f"{served}/a.jsonl")
    assert content_sha256(f"{served}/a.jsonl") == before
    os.utime(file, (2e9, 2e9))
    assert content_sha256(f"{served}/a.jsonl") != before


def test_an_address_with_a_secret_in_it_is_refused_and_not_repeated() -> None:
    for url in ("https://me:hush@host/a.jsonl", "https://host/a.jsonl?X-Amz-Signature=hush&part=1"):
        with pytest.raises(UserError) as caught:
            find_sources([url])
        assert "hush" not in str(caught.value)


@pytest.mark.parametrize("query", ["jwt=hush", "pwd=hush", "apikey=hush", "authtoken=hush"])
def test_every_common_name_of_a_secret_is_refused(query: str) -> None:
    with pytest.raises(UserError, match="a password or a signature"):
        remote_files(f"https://host/a.jsonl?{query}")


def test_words_that_only_look_like_secrets_and_hosts_in_brackets_are_asked_for(
    served: str, tmp_path: Path
) -> None:
    for address in (f"{served}/none.jsonl?author=me&keyword=cats", "http://[::1]:9/none.jsonl"):
        with pytest.raises(UserError) as caught:
            remote_files(address)
        assert "password" not in str(caught.value)
        assert "pattern" not in str(caught.value)


def test_protocols_that_are_not_read_and_packages_that_are_not_here_are_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UserError, match=r"zip::s3:// is not read"):
        find_sources(["zip::s3://bucket/a.jsonl"])
    monkeypatch.setitem(__import__("sys").modules, "s3fs", None)
    with pytest.raises(UserError) as caught:
        find_sources(["s3://bucket/a.jsonl"])
    assert caught.value.next_step == "pip install 'tuition[s3]'"


def test_files_of_memory_and_of_this_machine_have_addresses_too(tmp_path: Path) -> None:
    import fsspec

    with fsspec.open("memory://shards/x.jsonl", "wb") as stream:
        stream.write(b'{"prompt": "a", "completion": "b"}\n')
    (found,) = find_sources(["memory://shards/*.jsonl"]).train
    assert [row.value for row in read_rows(found)] == [{"prompt": "a", "completion": "b"}]
    assert RemoteFile(found).sha256() == content_sha256(found)
    (tmp_path / "y.jsonl").write_text('{"prompt": "a", "completion": "b"}\n')
    assert find_sources([f"file://{tmp_path}/*.jsonl"]).train == (str(tmp_path / "y.jsonl"),)


def test_what_is_not_there_says_so(served: str) -> None:
    with pytest.raises(UserError, match="no such file"):
        find_sources([f"{served}/missing.jsonl"])
