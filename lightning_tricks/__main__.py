"""The command line: ``python -m lightning_tricks``; what it does stands in ``commands/``."""

from lightning_tricks.commands import main

if __name__ == "__main__":
    raise SystemExit(main())
