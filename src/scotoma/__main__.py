"""``python -m scotoma``: the ``scotoma`` command where it is not on the path."""

from scotoma.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
