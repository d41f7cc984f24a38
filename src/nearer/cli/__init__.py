"""The command line: one file per group of commands.  `nearer.cli:main` is the entry point."""

from nearer.cli.main import app, main

__all__ = ["app", "main"]
