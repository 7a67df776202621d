"""Our alerts by real faults: a Prometheus scrapes a collector, and evaluates the rules with shorter times.

tests/deploy/test_rules.py has every alert, with series made up.
"""

import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from support.processes.program import MakeProgram, Program, require_peer, run
from support.processes.prometheus import prometheus
from support.senders import otlp_logs
from support.waiting import until

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "rules.yaml"
DOCS = "https://docs.example/infrasage"
# Of a rule: how long it must be true, over what time it looks back, and how long a message may wait, which on a busy machine is
# some seconds where nothing is wrong.
SHORTER = ((r"for: \d+[mh]", "for: 1s"), (r"\[\d+[mhd]\]", "[10s]"), (r"lag_seconds\) > \d+", "lag_seconds) > 10"))
# What a scrape that fails says too: its series end.
OF_A_STOP = {"InfraSageTargetDown", "InfraSagePartitionWithoutWriter"}
# Looks a day ahead, here from seconds of what everybody writes on this machine.
OF_THE_MACHINE = {"InfraSageDiskFills"}


class Alerts:
    """Those that fire, by their names."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._ever: set[str] = set()

    def firing(self) -> set[str]:
        found = httpx.get(f"{self._address}/api/v1/alerts").json()["data"]["alerts"]
        # As a mail has it.
        assert all(alert["annotations"]["runbook_url"].startswith(f"{DOCS}/") for alert in found)
        names = {alert["labels"]["alertname"] for alert in found if alert["state"] == "firing"} - OF_THE_MACHINE
        self._ever |= names
        return names

    def until(self, *names: str) -> None:
        until(lambda: set(names) <= self.firing())

    def until_quiet(self, *names: str) -> None:
        """Until none of these fires; then only these have, since the last time."""
        until(lambda: not self.firing())
        assert set(names) == self._ever - OF_A_STOP
        self._ever.clear()


@contextmanager
def watching(target: str, place: Path) -> Iterator[Alerts]:
    place.mkdir()
    rules = RULES.read_text()
    for long, short in SHORTER:
        rules, number = re.subn(long, short, rules)
        assert number, long
    (place / "rules.yaml").write_text(rules)
    config = (
        "global: {scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 500ms,"
        f" external_labels: {{infrasage_docs: '{DOCS}'}}}}\n"
        f"rule_files: [{place}/rules.yaml]\n"
        f"scrape_configs: [{{job_name: infrasage, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    with prometheus(require_peer("prometheus"), place, config):
        log = place / "prometheus.log"
        listening = until(lambda: re.search(r'msg="Listening on" .*address=(\S+)', log.read_text()))
        address = f"http://{listening[1]}"
        until(lambda: httpx.get(f"{address}/-/ready").status_code == 200)
        yield Alerts(address)


def send(program: Program, *bodies: str) -> int:
    headers = {"Content-Type": "application/x-protobuf"}
    return httpx.post(f"{program.http}/v1/logs", content=otlp_logs(list(bodies)), headers=headers, timeout=20).status_code


def test_each_fault_fires_its_alerts_until_it_is_over(make_program: MakeProgram, tmp_path: Path) -> None:
    """A store that is away, a collector that is killed, a log that lost messages, a keys file that is none, and a sender of
    items that are rejected. Without a fault nothing fires."""
    program = make_program(clickhouse__url="http://127.0.0.1:9")
    program.start()
    with watching(program.http.removeprefix("http://"), tmp_path / "prometheus") as alerts:
        assert send(program, "lost") == 200
        alerts.until("InfraSageStoreDown", "InfraSageLag")
        program.kill()
        shutil.move(program.data_dir / "log" / "messages.sqlite-wal", tmp_path / "removed")
        alerts.until("InfraSageTargetDown")

        del program.settings["clickhouse__url"]
        program.start()
        alerts.until("InfraSageLogDamaged")
        assert run("log", "confirm", "--data-dir", program.data_dir).returncode == 0
        alerts.until_quiet("InfraSageStoreDown", "InfraSageLag", "InfraSageLogDamaged")

        keys = program.data_dir / "keys.json"
        right = keys.read_text()
        keys.write_text("{")
        alerts.until("InfraSageKeysFileUnusable")
        keys.write_text(right)
        alerts.until_quiet("InfraSageKeysFileUnusable")

        def rejects() -> bool:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            record = {"service_id": "wrong", "metric_name": "m", "value": "x", "timestamp": now}
            httpx.post(f"{program.http}/api/v1/telemetry", json=record, timeout=20)
            return "InfraSageRejects" in alerts.firing()

        until(rejects)
        alerts.until_quiet("InfraSageRejects")
