"""Data larger than it may lie on the disk: `python -m benchmarks.stream [--gigabytes 5 --files 50]`.

Files of generated rows, each a conversation beside the document that it is about, are served on loopback. A run's
data is streamed from there, first as before step 1 (every row read, checked, rendered, compared with serving), then in
another process as after an interruption at 60 % of the updates. Both take the same examples; memory is the peak of the
process and of those that it started. What was done stays done, so a call that was ended goes on.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from benchmarks.figures import RESULTS, of_this_machine, write_result
from benchmarks.scale import WORDS
from tuition.machine import hardware, versions

WORDS_A_ROW = 100
DOCUMENT_BYTES = 12_000  # of a column that is read and not learned
BATCH = 64
TOGETHER = 4

ONE_START = """
import hashlib, json, resource, sys, time
started = time.perf_counter()
from tuition.train.libraries import import_large_ones
import_large_ones()
from tuition import starter
from tuition.api import make_renderer
from tuition.batch import make_plan
from tuition.batch.stream import batch_of, stream_corpus
from tuition.data import find_sources
from tuition.recipe import DataSettings, ModelSettings, RenderSettings, make_recipe
from pathlib import Path

pattern, root, stream_gb, share, updates = json.loads(sys.argv[1])
recipe = make_recipe({
    "model": starter.model_path("starter"), "data": [pattern], "val_split": 0.005, "max_length": 16384,
    "stream": True, "stream_files": TOGETHER, "stream_gb": stream_gb,
})
renderer = make_renderer(recipe.model, max_length=16384)
imported = time.perf_counter()
corpus = stream_corpus(
    find_sources(recipe.data), renderer, model=recipe.section(ModelSettings), data=recipe.section(DataSettings),
    render=recipe.section(RenderSettings), seed=0, root=Path(root), tell=lambda text: print(text, file=sys.stderr),
)
plan = make_plan(
    examples=len(corpus.train), batch_size=BATCH, epochs=1, max_steps=None, seed=0, files=corpus.train.files,
    together=TOGETHER,
)
ready = time.perf_counter()
digest, first = hashlib.sha256(), None
step = int(share * plan.steps)
for number in range(step, min(plan.steps, step + updates - 1) + 1):
    for example in batch_of(corpus.train, plan, number):
        digest.update(example.ids.tobytes())
    first = first or (time.perf_counter(), digest.hexdigest())
peaks = [resource.getrusage(who).ru_maxrss * 1024 / 1e6 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
for process in corpus.train.shelf._workers._processes:
    process._end()
peaks[1] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6
print(json.dumps({
    "rows": corpus.totals.rows_in, "kept": corpus.totals.kept, "examples": len(corpus.train), "tokens": corpus.tokens,
    "updates": plan.steps, "update": step, "sha256_of_update": first[1], "sha256": digest.hexdigest(),
    "seconds": {"imports": imported - started, "corpus": ready - imported, "first_update": first[0] - ready,
                "to_the_update": first[0] - started, "all": time.perf_counter() - started},
    "peak_mb": {"run": peaks[0], "largest_process_beside": peaks[1]},
}))
""".replace("TOGETHER", str(TOGETHER)).replace("BATCH", str(BATCH))


class Server(SimpleHTTPRequestHandler):
    """Files by ranges of bytes, as stores serve them."""

    def log_message(self, *_: Any) -> None: ...

    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        if not asked:
            super().do_GET()
            return
        first, last = (int(end) for end in asked.removeprefix("bytes=").split("-"))
        with Path(self.translate_path(self.path)).open("rb") as stream:
            size = stream.seek(0, 2)
            stream.seek(first)
            content = stream.read(min(last, size - 1) + 1 - first)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{first + len(content) - 1}/{size}")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


def main() -> None:
    """Write the files, serve them, and measure the two starts; or the one part that `--only` names."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--files", type=int, default=50)
    parser.add_argument("--stream-gb", type=float, default=0.2)
    parser.add_argument(
        "--folder", type=Path, required=True, help="where files and prepared data lie meanwhile"
    )
    parser.add_argument("--only", choices=("write", "first", "resume"), help="one part of it")
    parser.add_argument("--note", default="")
    options = parser.parse_args()
    data, root = options.folder / "files", options.folder / "prepared"
    if options.only in (None, "write"):
        write_files(data, options.files, int(options.gigabytes * 1e9 / options.files))
    server = ThreadingHTTPServer(("127.0.0.1", 28_417), partial(Server, directory=str(data)))
    Thread(target=server.serve_forever, daemon=True).start()
    pattern = f"http://127.0.0.1:{server.server_address[1]}/*.jsonl"
    result = read_result()
    if options.only in (None, "first"):
        result["first start, then the update at 60 %"] = one_start(
            pattern, root, options.stream_gb, updates=1
        )
    if options.only in (None, "resume"):
        result["resumed at 60 %"] = one_start(pattern, root, options.stream_gb, updates=1)
    if options.only != "write":
        result |= {
            "bytes": sum(path.stat().st_size for path in data.iterdir()), "files": len(list(data.iterdir())),
            "bytes_prepared_now": sum(p.stat().st_size for p in root.glob("*/*/*.arrow") if "kept" not in p.parts),
            "stream_gb": options.stream_gb, "note": options.note, "hardware": hardware("cpu"), "versions": versions(),
        }  # fmt: skip
        write_result(of_this_machine("stream"), result)
        print(json.dumps(result, indent=2))


def read_result() -> dict[str, Any]:
    """What earlier calls measured on such a machine."""
    path = RESULTS / f"{of_this_machine('stream')}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def write_files(folder: Path, files: int, size: int) -> None:
    """Conversations of two turns with the document that each is about; a file that is there with its size stays."""
    folder.mkdir(parents=True, exist_ok=True)
    library = " ".join(random.Random(0).choices(WORDS, k=400_000))
    for number in range(files):
        path = folder / f"part-{number:05}.jsonl"
        if path.exists() and path.stat().st_size >= size:
            continue
        chance = random.Random(number)
        with path.open("w", encoding="utf-8") as stream:
            row = 0
            while stream.tell() < size:
                answer = " ".join(chance.choices(WORDS, k=WORDS_A_ROW))
                turns = [
                    {"role": "user", "content": f"question {row} of {number}"},
                    {"role": "assistant", "content": answer},
                ]
                start = chance.randrange(len(library) - DOCUMENT_BYTES)
                document = library[start : start + DOCUMENT_BYTES]
                row_of = {"id": f"{number}-{row}", "messages": turns, "document": document}
                stream.write(json.dumps(row_of) + "\n")
                row += 1


def one_start(pattern: str, root: Path, stream_gb: float, *, updates: int) -> dict[str, Any]:
    """What a process of its own measured."""
    given = json.dumps([pattern, str(root), stream_gb, 0.6, updates])
    done = subprocess.run(
        [sys.executable, "-c", ONE_START, given], stdout=subprocess.PIPE, text=True, check=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
