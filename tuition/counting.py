"""How a number and what it counts are written, for every room."""


def counted(count: int, one: str, more: str = "") -> str:
    """`1 row`, `2,000 rows`; and what goes with it: `counted(n, "pair waits", "pairs wait")`.

    Args:
        one: the words behind 1.
        more: the words behind any other number; the same with an s where it is left out.
    """
    return f"{count:,} {one if count == 1 else more or f'{one}s'}"
