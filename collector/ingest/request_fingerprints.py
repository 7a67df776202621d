"""Recognize requests that are sent again, and remember which of them this process has answered.

Invariants:
1. A request without an Idempotency-Key has fingerprints only if its data identify themselves: metrics, traces and remote
   write, and logs whose every record has a time finer than a millisecond. Equal records of other logs are different events
   (tests/unit/collector/ingest/test_request_fingerprints.py, test_what_is_recognized_without_a_key).
2. The rejected items of a request are part of its fingerprints: a repetition with other accepted items is another request
   (test_other_rejections_are_another_request).
3. Only a request that is durable as a whole is remembered as answered (the same,
   test_a_request_that_failed_is_not_answered_from_memory).
4. A plan's own setting overrides those of the routes (the same, test_a_plan_has_its_own_setting).
5. A request that is repeated for longer than the window, at least every half of it, is one: a repetition is appended if the
   last copy is half a window old (the same, test_what_is_repeated_for_long_is_appended_every_half_window).
6. A remembered key takes the same memory, however long it is (the same, test_long_keys_take_no_more_memory).
"""

from collections.abc import Collection, Mapping
from hashlib import sha256
from typing import Final

from librt.strings import BytesWriter, read_i64_le, write_i64_le

from adapters.codec.wire import put_bytes
from adapters.errors import IDEMPOTENCY_KEY_REUSED, RequestRefused
from adapters.fingerprint import layout_fingerprints, request_fingerprint, request_seed
from adapters.record import Adapted
from collector.ingest import endpoints
from collector.ingest.answered_requests import AnsweredRequest, AnsweredRequests
from collector.runtime.latest_entries import LatestEntries
from collector.tenancy.identity import Caller

_SECOND_NS: Final = 10**9
_KEY_SHOWN_BYTES_MAX: Final = 100

# How a request without a key is recognized.
BY_KEY: Final = 0  # not at all
BY_BODY: Final = 1
BY_BODY_WITH_FINE_TIMES: Final = 2

# The routes by their names in the section repetitions, and how each is recognized if the setting is to use bodies.
HASHED: Final[Mapping[str, int]] = {
    "metrics": BY_BODY,
    "traces": BY_BODY,
    "logs": BY_BODY_WITH_FINE_TIMES,
    "remote_write": BY_BODY,
    "native": BY_BODY,
}
_ROUTES: Final[Mapping[str, str]] = {
    endpoints.OTLP_METRICS: "metrics",
    endpoints.OTLP_TRACES: "traces",
    endpoints.OTLP_LOGS: "logs",
    endpoints.REMOTE_WRITE: "remote_write",
    endpoints.NATIVE: "native",
    endpoints.NATIVE_BATCH: "native",
    endpoints.export(endpoints.METRICS_SERVICE): "metrics",
    endpoints.export(endpoints.TRACES_SERVICE): "traces",
    endpoints.export(endpoints.LOGS_SERVICE): "logs",
}
# The same for a plan that has its own setting.
_MODES_OF_PLANS: Final[Mapping[str, Mapping[str, int]]] = {
    "key": {},
    "body": {route: HASHED[name] for route, name in _ROUTES.items()},
}


class RequestFingerprints:
    """Makes the fingerprints of one process's requests. Used by one event loop, so it has no locks."""

    def __init__(self, window_s: int, hashed: Collection[str], answers_max: int) -> None:
        """If `window_s` is 0, no request is recognized. `hashed` has names of HASHED. `answers_max` answers are remembered."""
        self._window_ns: Final = window_s * _SECOND_NS
        self._modes: Final[dict[str, int]] = {route: HASHED[name] for route, name in _ROUTES.items() if name in hashed}
        self._seeds: Final[dict[str, int]] = {}
        self._answered: Final = AnsweredRequests(answers_max)
        # The time at which a key was used, and the request's fingerprint. By the digest of tenant, route and key, since a key
        # may be as long as all headers.
        self._keys: Final = LatestEntries(answers_max)

    def of(
        self, caller: Caller, route: str, body: bytes, key: bytes, adapted: Adapted, has_coarse_times: bool, now_unix_nano: int
    ) -> list[bytes]:
        """Return the fingerprint of each part; an empty list if repetitions are not to be recognized. Raises RequestRefused if
        the key was used for another body."""
        of_plan = caller.plan.repetitions
        if self._window_ns == 0 or of_plan == "off":
            return []
        if not key:
            mode = (self._modes if of_plan == "by_route" else _MODES_OF_PLANS[of_plan]).get(route, BY_KEY)
            if mode == BY_KEY or (mode == BY_BODY_WITH_FINE_TIMES and has_coarse_times):
                return []
        seed = self._seeds.get(route, 0)
        if seed == 0:
            seed = self._seeds[route] = request_seed(route)
        request = request_fingerprint(seed, body, key)
        if key:
            self._check_key(caller.tenant, route, key, request, now_unix_nano)
        return layout_fingerprints(request, adapted)

    def _check_key(self, tenant: str, route: str, key: bytes, request: bytes, now_unix_nano: int) -> None:
        name = BytesWriter()
        put_bytes(name, 0, tenant.encode())
        put_bytes(name, 0, route.encode())
        name.write(key)
        digest = sha256(name.getvalue()).digest()
        used = self._keys.get(digest)
        if used is not None and used[8:] != request and now_unix_nano - int(read_i64_le(used, 0)) <= self._window_ns:
            shown = repr(key[:_KEY_SHOWN_BYTES_MAX].decode("latin-1"))
            raise RequestRefused(
                IDEMPOTENCY_KEY_REUSED,
                f"Idempotency-Key {shown} was used for another body within {self._window_ns // _SECOND_NS} s"
                " (repetitions.window_s): send a new key with each new request",
            )
        entry = BytesWriter()
        write_i64_le(entry, now_unix_nano)
        entry.write(request)
        self._keys.put(digest, entry.getvalue())

    def find(self, tenant: str, fingerprints: list[bytes], now_unix_nano: int) -> AnsweredRequest | None:
        """Return this process's answer to the same request, if a copy was appended within the window."""
        if not fingerprints:
            return None
        answered = self._answered.find(tenant, fingerprints[-1])
        if answered is None or abs(now_unix_nano - answered.received_unix_nano) > self._window_ns:
            return None
        return answered

    def is_due(self, answered: AnsweredRequest, now_unix_nano: int) -> bool:
        """Return whether a repetition is to be appended all the same, since the last copy is half a window old. A writer knows
        only the copies that it reads, so without these it would store what a sender repeats for longer than a window."""
        return 2 * abs(now_unix_nano - answered.received_unix_nano) > self._window_ns

    def note(self, tenant: str, fingerprints: list[bytes], batch_id: bytes, adapted: Adapted, now_unix_nano: int) -> None:
        """Remember a durable request, or a durable repetition of the request that was answered with `batch_id`. One with a
        rejected or repaired item is not remembered, since its answer said more."""
        if fingerprints and not adapted.rejected and not adapted.repaired:
            self._answered.add(tenant, fingerprints[-1], batch_id, adapted, now_unix_nano)
