"""Data larger than the disk: each file is prepared by itself, kept while there is room, and prepared again when its turn comes.

Before step 1 every file is read, checked, rendered and compared with serving once, as all data is. What stays of it
for good is small: its ledger and findings, its held-out examples, the lengths and the SHA-256 of the others. A file
that is prepared again must give the same SHA-256, so what was proved of it holds.
"""

from tuition.batch.stream.corpus import stream_corpus
from tuition.batch.stream.files import StreamedFiles, batch_of

__all__ = ["StreamedFiles", "batch_of", "stream_corpus"]
