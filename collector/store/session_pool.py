"""Sessions of the embedded engine for clients of ClickHouse's protocol: one for each tenant and its settings.

The settings of a session are fixed when it is made, since it is readonly afterwards. So there is a session for each combination
of tenant and settings. The sessions that were used last are kept.

Invariants:
1. A session that is in use is not closed, and at most _KEPT_MAX idle sessions are kept. (test_sessions_are_kept_and_bounded)
2. A setting that is not listed here is refused, with the error of ClickHouse's readonly mode. A limit can only be lowered.
   (test_settings_that_change_more_than_the_answers_form_are_refused, test_limits_can_only_be_lowered)
3. A tenant's session has the conditions of collector/store/tenant_view.py from its first statement on.
   (test_no_way_of_asking_reads_another_tenants_rows)
"""

import contextlib
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final

from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError

from collector.store import tenant_view
from collector.store.contract import StoreError, StoreUnavailable
from collector.store.server import describe, one_line

_KEPT_MAX: Final = 8
Settings = Mapping[str, str | int | float]
_Key = tuple[str | None, tuple[tuple[str, str], ...]]

# Settings for the form of an answer, and for the semantics of SQL.
_FORM: Final = re.compile(
    r"output_format_\w+|format_csv_\w+|format_tsv_\w+|date_time_output_format|session_timezone|join_use_nulls|extremes"
    r"|group_by_use_nulls|union_default_mode|prefer_column_name_to_alias|transform_null_in|max_block_size"
)
# Settings that limit a statement. The smaller of the client's value and that of [store] applies. 0 is no limit.
_LIMITS: Final = frozenset({"max_execution_time", "max_memory_usage", "max_result_rows", "max_result_bytes"})
# Settings that drivers send and that have no effect here, since answers are sent when they are complete and nothing is written.
_WITHOUT_EFFECT: Final = frozenset(
    {
        "async_insert",
        "cancel_http_readonly_queries_on_client_close",
        "cast_string_to_dynamic_use_inference",
        "connect_timeout",
        "date_time_input_format",
        "http_headers_progress_interval_ms",
        "http_receive_timeout",
        "http_send_timeout",
        "http_write_exception_in_output_format",
        "insert_deduplicate",
        "log_comment",
        "max_threads",
        "network_zstd_compression_level",
        "readonly",
        "receive_timeout",
        "result_overflow_mode",
        "send_progress_in_http_headers",
        "send_timeout",
        "wait_end_of_query",
        "wait_for_async_insert",
    }
)
# The engine's errors for an unknown setting or an invalid value. Another attempt would fail as well.
_SETTING_ERRORS: Final = frozenset(
    [
        *("ARGUMENT_OUT_OF_BOUND", "BAD_ARGUMENTS", "CANNOT_PARSE_BOOL", "CANNOT_PARSE_INPUT_ASSERTION_FAILED"),
        *("CANNOT_PARSE_NUMBER", "CANNOT_PARSE_TEXT", "INVALID_SETTING_VALUE", "TYPE_MISMATCH", "UNKNOWN_SETTING"),
    ]
)


class SessionPool:
    """Lends sessions to statements of ClickHouse's protocol. Thread-safe."""

    def __init__(self, connect: Callable[[Settings], Client], reading: Settings) -> None:
        """`connect` makes a session with these settings, in this order. `reading` are the settings of every session; the last
        one makes it readonly."""
        self._connect: Final = connect
        self._reading: Final = reading
        self._lock: Final = threading.Lock()
        self._kept: Final[OrderedDict[_Key, list[Client]]] = OrderedDict()
        self._is_closed = False

    @contextmanager
    def session(self, tenant: str | None, settings: Mapping[str, str], run: Callable[[str], bytes]) -> Iterator[Client]:
        """Lend a session that shows the rows of `tenant`, or the rows of all tenants if it is None. `run` answers a statement
        of our own. Raises StoreError."""
        accepted = self._accepted(settings)
        key: _Key = tenant, tuple(sorted(accepted.items()))
        client = self._taken(key)
        if client is None:
            client = self._made(tenant, accepted, run)
        try:
            yield client
        finally:
            self._give_back(key, client)

    def close(self) -> None:
        """Close the idle sessions now, and the others when they are given back."""
        with self._lock:
            self._is_closed = True
            clients = [client for kept in self._kept.values() for client in kept]
            self._kept.clear()
        for client in clients:
            client.close()

    @property
    def kept(self) -> int:
        """Return how many sessions are kept and not in use."""
        return sum(map(len, self._kept.values()))

    def _accepted(self, settings: Mapping[str, str]) -> dict[str, str]:
        """Return the settings that a session gets. Raises StoreError if a setting is refused."""
        accepted: dict[str, str] = {}
        for name, value in settings.items():
            if name in _LIMITS:
                accepted[name] = self._lower(name, value)
            elif _FORM.fullmatch(name):
                accepted[name] = value
            elif name not in _WITHOUT_EFFECT:
                raise StoreError(f"Code: 164. DB::Exception: Cannot modify '{name}' setting in readonly mode. (READONLY)")
        return accepted

    def _lower(self, name: str, value: str) -> str:
        limit = self._reading[name]
        try:
            number = float(value)
        except ValueError:
            raise StoreError(f"Code: 27. DB::Exception: {name} is {value!r}, not a number. (CANNOT_PARSE_NUMBER)") from None
        return str(limit) if not 0 < number < float(limit) else value

    def _taken(self, key: _Key) -> Client | None:
        with self._lock:
            kept = self._kept.get(key)
            if not kept:
                return None
            client = kept.pop()
            if not kept:
                del self._kept[key]
            return client

    def _made(self, tenant: str | None, accepted: Mapping[str, str], run: Callable[[str], bytes]) -> Client:
        own: dict[str, str | int | float] = {}
        if tenant is not None:
            own = {"additional_table_filters": tenant_view.filters(tenant, run), **tenant_view.NO_CACHES}
        try:
            # `readonly` comes last, since it forbids further settings.
            return self._connect(
                {
                    **own,
                    **{name: self._reading[name] for name in self._reading if name not in accepted and name != "readonly"},
                    **accepted,
                    "readonly": 1,
                }
            )
        except ClickHouseError as error:
            if accepted and getattr(error, "name", None) in _SETTING_ERRORS:
                raise StoreError(describe(error)) from error
            raise StoreUnavailable(f"cannot open a session: {one_line(error)}") from error

    def _give_back(self, key: _Key, client: Client) -> None:
        closed: list[Client] = []
        with self._lock:
            if self._is_closed:
                closed.append(client)
            else:
                self._kept.setdefault(key, []).append(client)
                self._kept.move_to_end(key)
                while self.kept > _KEPT_MAX:
                    oldest = next(iter(self._kept))
                    closed.append(self._kept[oldest].pop(0))
                    if not self._kept[oldest]:
                        del self._kept[oldest]
        for each in closed:
            with contextlib.suppress(ClickHouseError):
                each.close()
