"""A running collector, as commands reach it over HTTP."""

import http.client
import json
from pathlib import Path
from typing import Annotated, Any, Final, Self
from urllib.parse import urlsplit

import typer

from collector.cli.common import endpoint_of, key_of
from collector.runtime.errors import CannotRun

KeyFile = Annotated[Path | None, typer.Option("--key-file", help="A file with the API key to send.", show_default="none")]

_TIMEOUT_S: Final = 10.0


class RemoteCollector:
    """GET requests, over one connection. `key`: an API key."""

    def __init__(self, endpoint: str, key: str | None) -> None:
        self.endpoint: Final = endpoint
        url = urlsplit(endpoint)
        connect = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        self._prefix: Final = url.path
        self._connection: Final = connect(url.hostname or "", url.port, timeout=_TIMEOUT_S)
        self._headers: Final = {} if key is None else {"x-api-key": key}

    @classmethod
    def of(cls, endpoint: str, key_file: Path | None) -> Self:
        """What the options name. Exits where they are wrong."""
        return cls(endpoint_of(endpoint, may_have_path=True), key_of(key_file))

    def get(self, target: str) -> bytes:
        """The body of the answer to a path and its query. Raises CannotRun, also where the status is not 200."""
        try:
            self._connection.request("GET", self._prefix + target, headers=self._headers)
            answer = self._connection.getresponse()
            body = answer.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()  # the next request connects again
            raise CannotRun(f"cannot reach {self.endpoint}: {error or type(error).__name__}") from error
        if answer.status != http.HTTPStatus.OK:
            raise CannotRun(f"{self.endpoint}{target.partition('?')[0]} answers {answer.status}: {_message(body)}")
        return body


def _message(body: bytes) -> str:
    """Of an error's answer."""
    try:
        document: Any = json.loads(body)
        return str(document["message"])
    except (ValueError, KeyError, TypeError):
        return body[:200].decode(errors="replace").strip() or "without a message"
