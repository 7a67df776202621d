"""`python -m infrasage_collector` is `infrasage-collector`."""

from infrasage_collector import main

main()
