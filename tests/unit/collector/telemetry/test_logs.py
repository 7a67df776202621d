"""The collector's own log: one event a line, whatever is in it."""

import asyncio
import http.client
import json
import logging
import ssl

import pytest
import structlog
import urllib3
from aiokafka.errors import KafkaConnectionError
from clickhouse_connect.driver.exceptions import OperationalError

from collector.config.process import Logging
from collector.telemetry import logs

EVIL = "x\n2026-01-01 [error] forged\r\x1b[2J\u2028\x85\x00"


def provoke() -> None:
    log = structlog.get_logger("mine")
    log.info(EVIL, value=EVIL, listed=[EVIL], number=3)
    logging.getLogger("hypercorn.error").error("lib %s", EVIL)
    try:
        raise ValueError(EVIL)
    except ValueError:
        log.exception("failed")


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Ours and the libraries': one JSON object each, with level, time and logger, and the values as they were."""
    logs.set_up(Logging(format="json"))
    provoke()
    events = [json.loads(line) for line in capsys.readouterr().err.split("\n")[:-1]]
    assert [event["level"] for event in events] == ["info", "error", "error"]
    assert [event["logger"] for event in events] == ["mine", "hypercorn.error", "mine"]
    assert all(event["timestamp"].endswith("Z") for event in events)
    assert events[0]["event"] == events[0]["value"] == EVIL
    assert events[0]["number"] == 3
    assert "ValueError" in events[2]["exception"]


def fail(error: Exception, cause: Exception | None = None) -> None:
    raise error from cause


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (ConnectionResetError(104, "Connection reset by peer"), None),
        (TimeoutError("timed out"), None),
        (ssl.SSLError(1, "bad record"), None),
        (asyncio.IncompleteReadError(b"x", 9), None),
        (http.client.IncompleteRead(b"x", 9), None),
        (urllib3.exceptions.ProtocolError("Connection broken", OSError("cut")), None),
        (urllib3.exceptions.DecodeError("not gzip:\n cut"), None),
        (KafkaConnectionError("closed"), None),
        (OperationalError("no answer"), urllib3.exceptions.ProtocolError("Connection aborted")),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("name", ["clickhouse_connect.driver.httputil", "asyncio", "urllib3.response"])
def test_network_faults_of_libraries_are_one_line(
    name: str, error: Exception, cause: Exception | None, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is one line whichever library logs it, in both formats, with the error itself."""
    for format_ in ("json", "console"):
        logs.set_up(Logging(format=format_))
        try:
            fail(error, cause)
        except Exception:
            logging.getLogger(name).error("unexpected failure to read next chunk", exc_info=True)
        (line,) = capsys.readouterr().err.splitlines()
        assert "unexpected failure" in line
        assert type(error).__name__ in line
        assert "Traceback" not in line


def test_defects_keep_their_tracebacks(capsys: pytest.CaptureFixture[str]) -> None:
    """Libraries' too, and ours also where a connection failed."""
    logs.set_up(Logging(format="json"))
    for logger, error in (
        (logging.getLogger("asyncio"), ZeroDivisionError("x")),
        (structlog.get_logger("collector.x"), ConnectionResetError("x")),
    ):
        try:
            fail(error)
        except Exception:
            logger.exception("failed")
        assert "Traceback" in json.loads(capsys.readouterr().err)["exception"]


def test_the_console_has_no_forged_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """No value begins a line or steers the terminal; a traceback's lines are set in."""
    logs.set_up(Logging(format="console"))
    provoke()
    text = capsys.readouterr().err
    assert not any(character in text for character in "\r\x1b\u2028\x85\x00")
    assert len([line for line in text.split("\n")[:-1] if not line.startswith("    ")]) == 3
    assert "    ValueError: x" in text


def test_auto_is_json_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal, the format is JSON."""
    logs.set_up(Logging())
    structlog.get_logger("mine").warning("hello")
    assert json.loads(capsys.readouterr().err)["event"] == "hello"


@pytest.mark.parametrize(("level", "expected"), [("debug", 4), ("info", 3), ("warning", 2), ("error", 1)])
def test_less_is_not_logged(capsys: pytest.CaptureFixture[str], level: str, expected: int) -> None:
    """Only what is at least as grave as logging.level is logged."""
    logs.set_up(Logging.model_validate({"level": level, "format": "json"}))
    log = structlog.get_logger("mine")
    log.debug("a")
    log.info("b")
    log.warning("c")
    log.error("d")
    assert len(capsys.readouterr().err.splitlines()) == expected
