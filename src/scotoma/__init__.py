"""Images that machines can read and people can't."""

__version__ = "0.1.0"
