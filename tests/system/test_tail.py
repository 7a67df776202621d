"""tail, beside the running collector."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.processes.kafka import Kafka
from support.processes.production import gateway
from support.processes.program import MakeProgram, Program, environment, heed_interrupts, run, started
from support.senders import otlp_logs
from support.waiting import until

from collector.tenancy import keys
from collector.tenancy.scopes import Scope


def send(http: str, service: str, body: str, **changed: Any) -> None:
    record = {"service_id": service, "type": "log", "body": body, "timestamp": datetime.now(UTC).isoformat(), **changed}
    httpx.post(f"{http}/api/v1/telemetry", json=record)


@contextmanager
def tailing(place: Path, *options: str | Path) -> Iterator[Path]:
    """The command beside the test: what it prints, once it watches. It ends by Ctrl-C, with status 0."""
    out, said = place / "out", place / "said"
    with out.open("w") as stdout, said.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "collector", "tail", *map(str, options)],
            stdout=stdout,
            stderr=stderr,
            env=environment(),
            preexec_fn=heed_interrupts,  # noqa: PLW1509  # it only sets a signal's disposition
        )
    try:
        until(lambda: "watching" in said.read_text() or process.poll() is not None)
        assert process.poll() is None, said.read_text()
        yield out
        process.send_signal(signal.SIGINT)
        assert 0 == process.wait(30), said.read_text()
    finally:
        process.kill()
        process.wait()


def test_records_are_shown_as_they_are_accepted(program: Program, tmp_path: Path) -> None:
    """Those of the service that is named, each once, on one line, without what would move a cursor."""
    with tailing(tmp_path, "--data-dir", program.data_dir, "--service", "wanted") as out:
        send(program.http, "other", "not wanted")
        send(program.http, "wanted", "first\x1b[2J", attributes={"region": "eu"})
        until(lambda: "first" in out.read_text())
        send(program.http, "wanted", "second")
        until(lambda: "second" in out.read_text())
    first, second = out.read_text().splitlines()
    assert "  anonymous  wanted  log  first\N{REPLACEMENT CHARACTER}[2J  region=eu" in first
    assert second.endswith("second")


def test_rejected_items_are_shown(program: Program, tmp_path: Path) -> None:
    """They are shown as JSON, for programs."""
    with tailing(tmp_path, "--data-dir", program.data_dir, "--rejected", "--json") as out:
        send(program.http, "s", "taken")
        send(program.http, "s", "x", timestamp="2001-01-01T00:00:00Z")
        until(lambda: out.read_text().endswith("\n"))
    [shown] = map(json.loads, out.read_text().splitlines())
    assert ("s", "log", "timestamp_too_old") == (shown["service"], shown["type"], shown["reason"])


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--data-dir", "{place}"], 1, "no collector runs on {place}"),
        (["--type", "logs"], 2, "--type must be one of metric, log"),
        (["--endpoint", "localhost"], 2, "--endpoint: localhost must be http://HOST:PORT"),
        (["--endpoint", "http://127.0.0.1:1"], 1, "cannot read http://127.0.0.1:1/api/v1/tail: "),
        (["--key-file", "{place}/none", "--endpoint", "http://127.0.0.1:1"], 2, "--key-file: cannot read {place}/none"),
    ],
)
def test_a_mistake_is_named(options: list[str], status: int, said: str, tmp_path: Path) -> None:
    """The error is one line."""
    done = run("tail", *(option.format(place=tmp_path) for option in options))
    assert (status, "") == (done.returncode, done.stdout)
    assert said.format(place=tmp_path) in done.stderr
    assert 1 == len(done.stderr.splitlines())


def test_it_goes_on_while_the_collector_is_away(make_program: MakeProgram, tmp_path: Path) -> None:
    """It says so once, and shows what is accepted after a restart; over HTTP and beside the collector."""
    keys_file = tmp_path / "keys.json"
    key = keys.create(keys_file, tenant="t", scope=Scope.ADMIN, plan="Unlimited", now=datetime.now(UTC))
    (tmp_path / "key").write_text(key.text)
    running = make_program(tenants__keys_file=keys_file)
    running.start()
    places = tmp_path / "beside", tmp_path / "http"
    for place in places:
        place.mkdir()
    with (
        tailing(places[0], "--data-dir", running.data_dir) as beside,
        tailing(places[1], "--endpoint", running.http, "--key-file", tmp_path / "key") as over_http,
    ):
        running.kill()
        until(lambda: all("\nwaiting: " in (place / "said").read_text() for place in places))
        running.start()
        until(lambda: all("\nwatching again\n" in (place / "said").read_text() for place in places))
        send(running.http, "s", "after the restart")
        until(lambda: all("after the restart" in out.read_text() for out in (beside, over_http)))
    for place in places:
        assert 1 == (place / "said").read_text().count("waiting: ")


def test_a_key_that_is_revoked_ends_it(program: Program, tmp_path: Path) -> None:
    """It ends with one line and status 1."""
    keys_file = program.data_dir / "keys.json"
    key = keys.create(keys_file, tenant="t", scope=Scope.READONLY, plan="Unlimited", now=datetime.now(UTC))
    (tmp_path / "key").write_text(key.text)
    headers = {"Authorization": f"Bearer {key.text}"}
    until(lambda: httpx.get(f"{program.http}/api/v1/usage", headers=headers).status_code == 200)  # the file is read by then
    command = [sys.executable, "-m", "collector", "tail", "--endpoint", program.http, "--key-file", str(tmp_path / "key")]
    with subprocess.Popen(command, env=environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline().startswith("watching")
        run("keys", "revoke", key.text, "--keys-file", keys_file)
        assert process.stderr.read().startswith(f"error: {program.http}/api/v1/tail answers 401: ")
    assert 1 == process.returncode


def test_it_ends_with_its_reader(program: Program) -> None:
    """With `tail | head -1`, it ends without a word, and with status 0."""
    command = [sys.executable, "-m", "collector", "tail", "--data-dir", str(program.data_dir)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stderr.readline().startswith("watching")
        process.stdout.close()

        def has_ended() -> bool:
            send(program.http, "s", "x")
            return process.poll() is not None

        until(has_ended)
        assert "" == process.stderr.read()
    assert 0 == process.returncode


def test_a_key_is_needed_over_http(program: Program) -> None:
    done = run("tail", "--endpoint", program.http)
    assert 1 == done.returncode
    assert f"{program.http}/api/v1/tail answers 401: " in done.stderr


def test_it_shows_what_any_worker_accepts(tmp_path: Path) -> None:
    """A tenant's key sees its own records, of all processes of a gateway; an admin's key sees all."""
    kafka = Kafka(tmp_path / "kafka", is_killed=False)
    kafka.start()
    keys_file = tmp_path / "keys.json"
    made: dict[str, str] = {}
    for tenant, scope in (("acme", Scope.WRITE), ("other", Scope.WRITE), ("admin", Scope.ADMIN)):
        made[tenant] = keys.create(keys_file, tenant=tenant, scope=scope, plan="Unlimited", now=datetime.now(UTC)).text
        (tmp_path / tenant).write_text(made[tenant])
    try:
        with started(gateway(kafka, tmp_path, workers=3, tenants__keys_file=keys_file)) as front:
            for tenant in ("acme", "other"):
                assert httpx.get(f"{front.http}/api/v1/tail", params={"watch": "w"}).status_code == 401
                (tmp_path / f"of-{tenant}").mkdir()
            with (
                tailing(tmp_path / "of-acme", "--endpoint", front.http, "--key-file", tmp_path / "acme") as acme,
                tailing(tmp_path / "of-other", "--endpoint", front.http, "--key-file", tmp_path / "admin") as everything,
            ):
                for number in range(30):  # each on a connection of its own: any worker's
                    for tenant in ("acme", "other"):
                        answer = httpx.post(
                            f"{front.http}/v1/logs",
                            content=otlp_logs([f"{tenant}-{number:02d}"]),
                            headers={"content-type": "application/x-protobuf", "x-api-key": made[tenant]},
                            timeout=20,
                        )
                        assert answer.status_code == 200, answer.text
                until(lambda: len(acme.read_text().splitlines()) == 30)
                until(lambda: len(everything.read_text().splitlines()) == 60)
            assert "other" not in acme.read_text()
            words = set(acme.read_text().split())
            assert {f"acme-{number:02d}" for number in range(30)} <= words
            for asked, status in (({"tenant": "other"}, 403), ({"type": "logs"}, 400), ({"rejected": "yes"}, 400), ({}, 200)):
                headers = {"x-api-key": made["acme"]}
                answer = httpx.get(f"{front.http}/api/v1/tail", params={"watch": "w", **asked}, headers=headers)
                assert status == answer.status_code, answer.text
    finally:
        kafka.close()
