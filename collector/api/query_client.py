"""The client of the query socket (query_socket.py), by which commands ask the collector that runs on a data directory.

Every command loads this module, so it needs only the standard library and small modules of ours.
"""

import contextlib
import http.client
import json
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from urllib.parse import quote

from collector.audit.findings import AuditFinding, from_documents
from collector.runtime.errors import CannotRun

SOCKET: Final = "query.sock"
# The directory for a snapshot of the data, in the data directory (collector/app/backup.py).
SNAPSHOT: Final = "snapshot"
# The format for people: rows in one frame, whatever the number of blocks.
TABLE_FORMAT: Final = "PrettyCompactMonoBlock"
BEHIND_HEADER: Final = "x-infrasage-messages-behind"
PLAIN: Final = "text/plain; charset=utf-8"

# The kernel limits the path of a Unix socket to 108 bytes on Linux and 104 on other systems, including the final zero byte.
_PATH_BYTES_MAX: Final = 103


class NotRunning(Exception):
    """No collector listens on the socket."""


class QueryFailed(CannotRun):
    """The request was refused, or failed. The message is the collector's or the store's, or the reason why there is no
    answer."""


class QueryAnswer(NamedTuple):
    """The answer to a query. `body` is in the requested format. `messages_behind` is how many acknowledged messages are not
    stored yet, so that `body` does not show them."""

    body: bytes
    messages_behind: int


@contextlib.contextmanager
def socket_address(data_dir: Path) -> Iterator[str]:
    """Yield a path of the socket: through a short symbolic link if the real path is too long for the kernel."""
    path = data_dir / SOCKET
    if len(os.fsencode(path)) <= _PATH_BYTES_MAX:
        yield str(path)
        return
    with tempfile.TemporaryDirectory(prefix="infrasage-", dir="/tmp") as directory:  # not $TMPDIR, which may be long, too
        link = Path(directory) / "data"
        link.symlink_to(data_dir.absolute())
        yield str(link / SOCKET)


class _UnixConnection(http.client.HTTPConnection):
    """The standard library's HTTP client, on a connected socket."""

    def __init__(self, connected: socket.socket) -> None:
        super().__init__("collector")
        self.sock = connected


def ask(data_dir: Path, sql: str, format_: str, *, now: bool = False) -> QueryAnswer:
    """Ask the collector that runs on `data_dir` a query. Blocks. `now`: do not wait for messages that are not stored yet.

    Raises NotRunning, QueryFailed.
    """
    return _post(data_dir, f"/query?format={quote(format_)}{'&now=1' if now else ''}", sql.encode())


def ask_dead_letters(data_dir: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Send a request about dead letters to the collector (DeadLetterService.answer). Raises NotRunning, QueryFailed."""
    answer: dict[str, Any] = json.loads(_post(data_dir, "/dead-letters", json.dumps(request).encode()).body)
    return answer


def ask_tail(data_dir: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Ask the collector for live records. `request` has `watch`, `tenant`, `service`, `type` and `rejected`, with the meanings
    of GET /api/v1/tail. Raises NotRunning, QueryFailed."""
    answer: dict[str, Any] = json.loads(_post(data_dir, "/tail", json.dumps(request).encode()).body)
    return answer


def confirm_audit(data_dir: Path, actor: str) -> list[AuditFinding]:
    """Confirm the findings of the audits of the collector that runs on `data_dir`, and return them. Raises NotRunning,
    QueryFailed."""
    return from_documents(_post(data_dir, "/confirm-audit", actor.encode()).body)


def ask_snapshot(data_dir: Path, action: Literal["take", "remove"]) -> dict[str, Any]:
    """Have the collector take or remove a snapshot of its data. Raises NotRunning, QueryFailed."""
    answer: dict[str, Any] = json.loads(_post(data_dir, "/snapshot", action.encode()).body)
    return answer


def is_listening(data_dir: Path) -> bool:
    """Return whether a collector listens on the socket of `data_dir`. A collector that is starting or stopping does not."""
    try:
        with _connected(data_dir):
            return True
    except NotRunning:
        return False
    except QueryFailed:  # the collector runs as another user
        return True


@contextlib.contextmanager
def _connected(data_dir: Path) -> Iterator[socket.socket]:
    """Yield a socket that is connected to the collector. Raises NotRunning, QueryFailed."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connected:
        try:
            with socket_address(data_dir) as address:
                connected.connect(address)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            raise NotRunning(str(data_dir / SOCKET)) from error
        except OSError as error:
            raise QueryFailed(
                f"cannot connect to {data_dir / SOCKET}: {error.strerror}; only the user that the collector runs as may ask"
            ) from error
        yield connected


def _post(data_dir: Path, target: str, body_sent: bytes) -> QueryAnswer:
    """Send a POST request to the collector, and return its answer. Raises NotRunning; QueryFailed unless the status is 200."""
    with _connected(data_dir) as connected:
        connection = _UnixConnection(connected)
        try:
            connection.request("POST", target, body_sent, {"content-type": PLAIN})
            response = connection.getresponse()
            body = response.read()
        except (OSError, http.client.HTTPException) as error:
            raise QueryFailed(f"the collector closed the connection before it answered ({error})") from error
    if response.status != http.HTTPStatus.OK:
        raise QueryFailed(body.decode(errors="replace"))
    return QueryAnswer(body, int(response.headers.get(BEHIND_HEADER, "0")))
