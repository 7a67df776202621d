"""`python -m collector` is `infrasage-collector`."""

from collector.cli.entry import main

main()
