"""Rendered examples on disk: written once, named by the hash of all that decided them, memory-mapped after.

A prepared folder is also a plain `datasets` folder: `datasets.load_from_disk(folder)["train"]` has
`input_ids` and `labels`, which other trainers take unchanged. Nothing in it is used before its SHA-256 was
seen to be right: the facts when the folder is opened, each block of examples when it is first touched. So
opening takes the same time whatever the size. Nothing here reads data, renders or imports torch.
"""

from tuition.batch.prepared.joined import JoinedSide
from tuition.batch.prepared.key import PreparedKey, code_sha256, hash_sources, tokenizer_sha256
from tuition.batch.prepared.layout import NOT_LEARNED
from tuition.batch.prepared.opening import Prepared, find_prepared, open_prepared
from tuition.batch.prepared.sides import PreparedSide, lengths_of
from tuition.batch.prepared.writing import remove_unused, write_prepared

__all__ = [
    "NOT_LEARNED",
    "JoinedSide",
    "Prepared",
    "PreparedKey",
    "PreparedSide",
    "code_sha256",
    "find_prepared",
    "hash_sources",
    "lengths_of",
    "open_prepared",
    "remove_unused",
    "tokenizer_sha256",
    "write_prepared",
]
