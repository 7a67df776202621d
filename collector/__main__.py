"""`python -m collector` is `infrasage-collector`."""

from collector.cli.main import main

main()
