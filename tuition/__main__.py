"""`python -m tuition` is `tuition`: torchrun can start it so."""

from tuition.cli import main

if __name__ == "__main__":
    main()
