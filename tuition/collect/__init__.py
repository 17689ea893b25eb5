"""The first room: what people write and judge, kept in one SQLite file.

The only SQL of the project is here. The room reads no data files and knows no models: prompts and answers
come in as values, demonstrations and judgements go out as values. `Store` opens a file; `people`, `prompts`,
`queue`, … beside it each take one and a few values.
"""

from tuition.collect.refusals import ConflictError, NotAllowedError, NotFoundError, TooManyError
from tuition.collect.store import Store

__all__ = ["ConflictError", "NotAllowedError", "NotFoundError", "Store", "TooManyError"]
