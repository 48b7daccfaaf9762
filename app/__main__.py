"""`python -m app` is `rns`."""

from app.cli import main

main()
