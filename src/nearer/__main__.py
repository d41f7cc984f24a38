"""`python -m nearer` is `nearer`."""

from nearer.cli import main

main()
