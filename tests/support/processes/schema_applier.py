"""Changes the tables of a server again and again, to be killed: run as a program, it goes from one of WANTED to the next.

    python schema_applier.py URL

It prints a line for each statement. Where the server is away, it tries again.
"""

import sys
import time
from contextlib import closing
from itertools import cycle

from support.processes.clickhouse_server import OPTIONS, Server

from collector.store.clickhouse import ClickHouseStore
from collector.store.contract import StoreMisconfigured, StoreUnavailable
from collector.store.options import RequestedTables
from collector.store.retention import Retention

_RETRY_S = 0.05
# No row is older than these days.
WANTED = (
    RequestedTables(
        Retention(days=9000, dead_letters=9000, tenants={"tenant": 9001}),
        fsync=False,
        text_indexes="all",
        materialized_attributes=("k",),
    ),
    RequestedTables(Retention(logs=9002, traces=9003, dead_letters=None), fsync=False, text_indexes="body"),
    RequestedTables(Retention(dead_letters=9004), fsync=False, materialized_attributes=("k", "l")),
)


class AnnouncingStore(ClickHouseStore):
    """Prints a line before each statement that changes something."""

    def _command(self, sql: str) -> None:
        print(sql.split("\n", maxsplit=1)[0], flush=True)
        super()._command(sql)


def main(url: str) -> None:
    there = Server(url)
    for wanted in cycle(WANTED):
        options = OPTIONS._replace(tables=wanted)
        as_whom = AnnouncingStore.server(url, options, user=there.user, password=there.password, database=there.database)
        with closing(as_whom) as store:
            while True:
                try:
                    store.apply_schema()
                except StoreMisconfigured:
                    raise
                except StoreUnavailable:
                    time.sleep(_RETRY_S)
                else:
                    break


if __name__ == "__main__":
    main(sys.argv[1])
