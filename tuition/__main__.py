"""The command `tuition`, which is `python -m tuition` too: torchrun can start it so."""

from tuition.leaving import leave_when_told
from tuition.streams import make_usable


def main() -> None:
    """Run the command; until it has begun, a signal ends it as if it had never been started."""
    leave_when_told()
    make_usable()
    from tuition.cli import main as command

    command()


if __name__ == "__main__":
    main()
