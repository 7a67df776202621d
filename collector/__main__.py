"""`python -m collector` is `infrasage-collector`."""

from collector.cli import main

main()
