"""Clients that send each request again until it is taken, as OTLP's exporters do; and lose answers themselves."""

import http.client
import itertools
import random
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Final, Self

from support.senders import otlp_logs

_PAUSE_S: Final = 0.06
_RETRY_S: Final = 0.2


class Resending:
    """Threads that send numbered OTLP logs to gateways in turn. Use as a context: at the end each request was acknowledged."""

    def __init__(
        self, ports: Sequence[int], *, threads: int = 6, records: int = 5, loss: float = 0.1, timeout_s: float = 4
    ) -> None:
        """`loss`: the part of answers that are not read; `timeout_s`: how long one is waited for."""
        self.sent: set[int] = set()
        self.resent = 0
        self._ports: Final = ports
        self._records: Final = records
        self._loss: Final = loss
        self._timeout_s: Final = timeout_s
        self._numbers: Final[Iterator[int]] = itertools.count()
        self._lock: Final = threading.Lock()
        self._stop: Final = threading.Event()
        self._threads: Final = [threading.Thread(target=self._run, args=(index,)) for index in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)

    def _run(self, index: int) -> None:
        chance = random.Random(index)
        gateways = itertools.cycle(self._ports)
        while not self._stop.is_set():
            with self._lock:
                numbers = [next(self._numbers) for _ in range(self._records)]
            body = otlp_logs([str(number) for number in numbers])
            while not self._send(next(gateways), body, chance):
                with self._lock:
                    self.resent += 1
                time.sleep(_RETRY_S)
            with self._lock:
                self.sent.update(numbers)
            time.sleep(_PAUSE_S)

    def _send(self, port: int, body: bytes, chance: random.Random) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=self._timeout_s)
        try:
            connection.request("POST", "/v1/logs", body, {"Content-Type": "application/x-protobuf"})
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        assert answer.status in (200, 503), answer.status
        return answer.status == 200 and chance.random() >= self._loss
