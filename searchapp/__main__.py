"""``python -m searchapp`` is the command ``searchapp``."""

from searchapp.cli import main

main()
