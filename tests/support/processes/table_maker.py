"""Makes an embedded store with all its tables: `table_maker DIRECTORY FSYNC`, for support.store_templates. FSYNC is 0 or 1."""

import os
import sys
from contextlib import closing
from pathlib import Path

from collector.store.clickhouse import ClickHouseStore
from collector.store.options import RequestedTables, StoreOptions


def main(directory: Path, fsync: bool) -> None:
    os.umask(0o077)  # as the collector does
    with closing(ClickHouseStore.embedded(directory, StoreOptions(RequestedTables(fsync=fsync)))) as store:
        store.apply_schema()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] == "1")
