"""The Helm chart, as Helm renders it: by Kubernetes' own schemas, by the settings, and by what docs/operate/operating.md asks
for."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import helm_python as helm  # type: ignore[import-untyped,unused-ignore]
import kubernetes_validate  # type: ignore[import-untyped,unused-ignore]
import pytest
import typer
from ruamel.yaml import YAML

from collector.cli.main import app
from collector.config.reference import SETTINGS
from collector.config.sources import load

CHART: Final = Path(__file__).parents[2] / "deploy" / "helm" / "infrasage-collector"
MINIMAL: Final = {"kafka": {"bootstrap": "kafka-1:9092,kafka-2:9092"}, "clickhouse": {"url": "http://clickhouse:8123"}}
VALUES: Final[dict[str, dict[str, Any]]] = {
    "minimal": MINIMAL,
    "everything": {
        "kafka": {
            "bootstrap": "kafka-1:9093",
            "security": "SASL_SSL",
            "username": "collector",
            "passwordSecret": {"name": "kafka-password", "key": "password"},
            "caSecret": {"name": "kafka-ca", "key": "ca.pem"},
        },
        "clickhouse": {
            "url": "https://clickhouse:8443",
            "user": "collector",
            "database": "telemetry",
            "cluster": "main",
            "passwordSecret": {"name": "clickhouse-password"},
            "caSecret": {"name": "clickhouse-ca"},
        },
        "redis": {"url": "redis://redis:6379"},
        "keys": {"secret": "keys", "key": "keys.json", "anonymous": "no"},
        "tls": {"secret": "tls", "clientCaSecret": {"name": "clients"}},
        "shutdown": {"lameDuckS": 12.5, "timeoutS": 30},
        "settings": {
            "open_files_reserve": 2048,
            "http": {"connections_max": 1000000, "body_bytes_max": "16 MiB"},
            "validation": {"request_elements_max": 1000000000},
            "kafka": {"create_topics": False},
            "logging": {"level": "debug"},
            "plans": {"Small": {"requests_per_s": 5, "requests_burst": 10}},
        },
        "gateway": {
            "autoscaling": {"enabled": False},
            "replicas": 4,
            "workers": 3,
            "nodeSelector": {"disk": "fast"},
            "tolerations": [{"key": "telemetry", "operator": "Exists"}],
            "podAnnotations": {"note": "here"},
        },
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}, "keySecret": {"name": "scrape", "key": "k"}},
        "networkPolicy": {
            "senders": [{"namespaceSelector": {}}],
            "monitoring": [{"namespaceSelector": {"matchLabels": {"name": "monitoring"}}}],
            "egress": [{"ports": [{"port": 9093, "protocol": "TCP"}]}],
        },
        "serviceAccount": {"name": "telemetry"},
        "imagePullSecrets": [{"name": "registry"}],
        "service": {"type": "LoadBalancer", "annotations": {"note": "here"}},
    },
    "one worker at a time": MINIMAL
    | {
        "gateway": {"disruptionBudget": {"enabled": False}},
        "writer": {"replicas": 1, "disruptionBudget": {"enabled": False}},
        "topologySpread": {"enabled": False},
        "networkPolicy": {"enabled": False},
    },
    "single": {"mode": "single"},
    "single with TLS and keys": {
        "mode": "single",
        "tls": {"secret": "tls"},
        "keys": {"secret": "keys", "anonymous": "no"},
        "single": {"storage": {"className": "fast", "size": "200Gi"}, "clickhouseHttp": True},
        "networkPolicy": {"queries": [{"podSelector": {"matchLabels": {"app": "grafana"}}}]},
        "serviceMonitor": {"enabled": True},
        "settings": {"store": {"retention_days": 30}},
    },
}
# The oldest version that the chart's kubeVersion allows, and the newest whose schemas are known here.
KUBERNETES: Final = ("1.25", kubernetes_validate.latest_version())
# Of the Prometheus operator: not among Kubernetes' own schemas.
FOREIGN: Final = ("ServiceMonitor",)

Manifest = dict[str, Any]


def render(values: dict[str, Any], name: str = "try", namespace: str = "telemetry") -> list[Manifest]:
    with helm.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values)
        rendered = chart.render(values, name=name, namespace=namespace)
    read = YAML(typ="safe", pure=True)
    read.version = (1, 1)  # as Helm and kubectl read it: there, yes and no are booleans
    return [
        manifest
        for path, text in sorted(rendered.items())
        if path.endswith(".yaml")
        for manifest in read.load_all(text)
        if manifest is not None
    ]


@pytest.fixture(params=list(VALUES))
def values(request: pytest.FixtureRequest) -> dict[str, Any]:
    return VALUES[request.param]


@pytest.fixture
def manifests(values: dict[str, Any]) -> list[Manifest]:
    return render(values)


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [manifest for manifest in manifests if manifest["kind"] in kinds]


def pods(manifests: list[Manifest]) -> Iterator[tuple[Manifest, Manifest, Manifest]]:
    """Each workload, its pod and its only container."""
    for workload in of_kind(manifests, "Deployment", "StatefulSet"):
        pod = workload["spec"]["template"]["spec"]
        (container,) = pod["containers"]
        yield workload, pod, container


def test_helm_has_nothing_to_say_against_it(values: dict[str, Any]) -> None:
    """`helm lint --strict`, with no finding above information; a missing icon is one."""
    report = helm.lint(str(CHART), values, strict=True)
    assert [] == [message for message in report["messages"] if message["severity"] > 1]
    assert not report["errors"]


def test_kubernetes_accepts_it(manifests: list[Manifest]) -> None:
    """Every object, by the schemas of the oldest and the newest version, without a field that these do not know."""
    assert manifests
    for manifest in manifests:
        if manifest["kind"] not in FOREIGN:
            for version in KUBERNETES:
                kubernetes_validate.validate(manifest, version, strict=True)


def test_the_schemas_would_notice(manifests: list[Manifest]) -> None:
    """A field in the wrong place is an error of the check above."""
    workload, _, container = next(pods(manifests))
    container["readOnlyRootFilesystem"] = True
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(workload, KUBERNETES[1], strict=True)


def test_every_variable_is_a_setting(manifests: list[Manifest], values: dict[str, Any], tmp_path: Path) -> None:
    """All of a pod have allowed values together; none is given twice, and none is a secret."""
    secrets = {setting.variable for setting in SETTINGS.values() if setting.is_secret}
    for _, _, container in pods(manifests):
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        assert len(environment) == len(container["env"])
        assert not secrets & environment.keys()
        for name in environment:
            if name.endswith("PASSWORD_FILE"):  # exists in the pod only
                (tmp_path / "password").write_text("hunter2")
                environment[name] = str(tmp_path / "password")
        settings = load(environment=environment).settings
        assert settings.host == "0.0.0.0"
        for section, given in values.get("settings", {}).items():
            for key, value in given.items() if isinstance(given, dict) and section != "plans" else ():
                assert environment[f"INFRASAGE_{section}__{key}".upper()] == (
                    str(value) if not isinstance(value, bool) else str(value).lower()
                )


def test_every_command_exists(manifests: list[Manifest]) -> None:
    """Each exists, with its flags."""
    known: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]  # a group has them
    for _, _, container in pods(manifests):
        words = container["args"]
        flags = {option for parameter in known[words[0]].params for option in parameter.opts}
        assert {word for word in words if word.startswith("--")} <= flags
        assert all(isinstance(word, str) for word in words)


def test_every_container_may_do_little(manifests: list[Manifest]) -> None:
    """None is root or has capabilities or a token of the API, none can write its root file system, memory is bounded."""
    for _, pod, container in pods(manifests):
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] > 0
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}


def test_probes_are_what_operating_asks_for(manifests: list[Manifest], values: dict[str, Any]) -> None:
    """Readiness is /healthz, liveness of a receiver only a connection; with TLS by HTTPS, with client certificates by TCP."""
    tls = values.get("tls", {})
    is_mutual = bool(tls.get("clientCaSecret"))
    scheme = "HTTPS" if tls else "HTTP"
    for _, _, container in pods(manifests):
        ready, live = container["readinessProbe"], container["livenessProbe"]
        healthz = {"path": "/healthz", "port": "http", "scheme": scheme}
        assert ready.get("httpGet") == (None if is_mutual else healthz)
        assert ready.get("tcpSocket") == ({"port": "http"} if is_mutual else None)
        if container["name"] != "writer":
            assert live["tcpSocket"] == {"port": "http"}
            assert ready["failureThreshold"] == 1


def test_a_pod_has_the_time_that_a_stop_takes(manifests: list[Manifest]) -> None:
    """It is killed later than lame_duck_s + timeout_s + 2, and stays ready to answer for longer than two probes take."""
    for _, pod, container in pods(manifests):
        environment = {variable["name"]: variable["value"] for variable in container["env"]}
        lame_duck_s = float(environment["INFRASAGE_SHUTDOWN__LAME_DUCK_S"])
        timeout_s = float(environment["INFRASAGE_SHUTDOWN__TIMEOUT_S"])
        assert pod["terminationGracePeriodSeconds"] > lame_duck_s + timeout_s + 2
        if container["name"] != "writer":
            assert lame_duck_s > 2 * container["readinessProbe"]["periodSeconds"]


def test_what_refers_to_something_finds_it(manifests: list[Manifest]) -> None:
    """Selectors, the scaler's target, ports, volumes and the service account."""
    workloads = {workload["metadata"]["name"]: workload for workload, _, _ in pods(manifests)}
    labels = [workload["spec"]["template"]["metadata"]["labels"] for workload in workloads.values()]

    def selected(selector: dict[str, str]) -> int:
        return sum(selector.items() <= there.items() for there in labels)

    for workload, pod, container in pods(manifests):
        assert selected(workload["spec"]["selector"]["matchLabels"]) == 1
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claimed = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        assert mounted == {volume["name"] for volume in pod["volumes"]} | claimed
        assert len({mount["mountPath"] for mount in container["volumeMounts"]}) == len(mounted)
        made = {account["metadata"]["name"] for account in of_kind(manifests, "ServiceAccount")}
        assert pod["serviceAccountName"] in (made or {"telemetry"})
        for constraint in pod.get("topologySpreadConstraints", []):
            assert selected(constraint["labelSelector"]["matchLabels"]) == 1
        paths = {variable["value"] for variable in container["env"] if str(variable["value"]).startswith("/etc/infrasage/")}
        folders = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {path.rpartition("/")[0] for path in paths} <= folders
    for budget in of_kind(manifests, "PodDisruptionBudget"):
        assert selected(budget["spec"]["selector"]["matchLabels"]) == 1
    for policy in of_kind(manifests, "NetworkPolicy"):
        assert selected(policy["spec"]["podSelector"]["matchLabels"]) == 1
    for scaler in of_kind(manifests, "HorizontalPodAutoscaler"):
        scaled = workloads[scaler["spec"]["scaleTargetRef"]["name"]]
        assert "replicas" not in scaled["spec"]  # or each upgrade of the chart would undo what the scaler did
    services = of_kind(manifests, "Service")
    for service in services:
        (target,) = (
            container
            for workload, _, container in pods(manifests)
            if service["spec"]["selector"].items() <= workload["spec"]["template"]["metadata"]["labels"].items()
        )
        ports = {port["name"] for port in target["ports"]}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports
    for monitor in of_kind(manifests, "ServiceMonitor"):
        matched = [
            service
            for service in services
            if monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        ]
        assert len(matched) == 1
        (endpoint,) = monitor["spec"]["endpoints"]
        assert endpoint["path"] == "/metrics"
        assert endpoint["port"] in {port["name"] for port in matched[0]["spec"]["ports"]}
        # The labels are set in the same case: with a key, /metrics names tenants.
        key = {"authorization": {"credentials": {"name": "scrape", "key": "k"}}}
        has_key = "release" in monitor["metadata"]["labels"]
        assert {name: value for name, value in endpoint.items() if name == "authorization"} == (key if has_key else {})


def test_ports_are_those_of_the_settings(manifests: list[Manifest]) -> None:
    """The chart gives no port a setting, so the defaults are what listens."""
    expected = {name: SETTINGS[key].field.default for name, key in PORTS.items()}
    for _, _, container in pods(manifests):
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        if container["name"] == "writer":
            assert ports == {"http": SETTINGS["writer.port"].field.default}
        else:
            assert ports.pop("clickhouse", 8123) == SETTINGS["store.http_port"].field.default
            assert ports == expected


PORTS: Final = {"http": "http.port", "otlp-http": "http.otlp_port", "otlp-grpc": "grpc.port"}


def test_the_cluster_may_query_a_single_pod_only_where_that_is_asked_for() -> None:
    """Then it listens on all addresses, the Service has the port, and the network policy says who may connect."""
    closed, opened = render(VALUES["single"]), render(VALUES["single with TLS and keys"])
    for manifests, count in ((closed, 0), (opened, 1)):
        ((_, _, container),) = pods(manifests)
        listening = [variable["value"] for variable in container["env"] if variable["name"] == "INFRASAGE_STORE__HTTP_HOST"]
        assert listening == ["0.0.0.0"] * count
        (service,) = of_kind(manifests, "Service")
        assert [port["port"] for port in service["spec"]["ports"]].count(8123) == count
        (policy,) = of_kind(manifests, "NetworkPolicy")
        rules = [rule for rule in policy["spec"]["ingress"] if {"port": "clickhouse", "protocol": "TCP"} in rule["ports"]]
        assert [rule["from"] for rule in rules] == [[{"podSelector": {"matchLabels": {"app": "grafana"}}}]] * count


@pytest.mark.parametrize("name", ["gateway", "writer"])
def test_a_changed_key_needs_no_restart(name: str) -> None:
    """Keys are a directory, which the kubelet updates; a subPath or a checksum in the pod would hinder that or restart it."""
    workload = next(workload for workload, _, container in pods(render(VALUES["everything"])) if container["name"] == name)
    pod = workload["spec"]["template"]["spec"]
    (mount,) = (mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "keys")
    assert mount == {"name": "keys", "mountPath": "/etc/infrasage/keys", "readOnly": True}
    (volume,) = (volume for volume in pod["volumes"] if volume["name"] == "keys")
    assert volume == {"name": "keys", "secret": {"secretName": "keys", "defaultMode": 0o440}}
    annotations = workload["spec"]["template"]["metadata"].get("annotations", {})
    assert annotations == ({"note": "here"} if name == "gateway" else {})


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ({"clickhouse": MINIMAL["clickhouse"]}, "kafka.bootstrap is needed"),
        ({"kafka": MINIMAL["kafka"]}, "clickhouse.url is needed"),
        (MINIMAL | {"kafka": {"bootstrap": "k:1", "security": "SASL_SSL"}}, "kafka.username is needed"),
        (
            MINIMAL | {"kafka": {"bootstrap": "k:1", "security": "SASL_SSL", "username": "u"}},
            "kafka.passwordSecret.name is needed",
        ),
    ],
)
def test_what_is_missing_is_named(missing: dict[str, Any], said: str) -> None:
    """The error has the value's own name, before anything is installed."""
    with pytest.raises(helm.HelmError, match=re.escape(said)):
        render(missing)


@pytest.mark.parametrize(
    "wrong",
    [
        {"mode": "both"},
        {"gateway": {"replica": 3}},
        {"clickhouse": {"url": "clickhouse:9000"}},
        {"writer": {"replicas": 0}},
        {"gateway": {"podAnnotations": {"prometheus.io/scrape": True}}},  # what Kubernetes takes as text only
        {"writer": {"nodeSelector": {"disk": 1}}},
        {"service": {"annotations": {"internal": True}}},
        {"serviceMonitor": {"labels": {"release": 1}}},
    ],
)
def test_a_wrong_value_is_refused(wrong: dict[str, Any]) -> None:
    """The chart's schema refuses it, and a misspelt name, too."""
    with pytest.raises(helm.HelmValuesError):
        render(MINIMAL | wrong)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (MINIMAL | {"settings": {"kafka": {"bootstrap": "k:1"}}}, "settings.kafka.bootstrap cannot be set: the value kafka.b"),
        (MINIMAL | {"settings": {"http": {"port": 9090}}}, "settings.http.port cannot be set: the chart needs its own value"),
        (MINIMAL | {"settings": {"host": "127.0.0.1"}}, "settings.host cannot be set: the chart needs its own value"),
        (
            MINIMAL | {"settings": {"clickhouse": {"password": "x"}}},
            "the value clickhouse.passwordSecret of the chart is for it",
        ),
        (MINIMAL | {"gateway": {"autoscaling": {"minReplicas": 11}}}, "minReplicas is 11, more than maxReplicas, 10"),
        (MINIMAL | {"tls": {"clientCaSecret": {"name": "clients"}}}, "tls.clientCaSecret is given without tls.secret"),
        (
            MINIMAL | {"kafka": {"bootstrap": "k:1", "username": "u"}},
            "kafka.username is given, and kafka.security is PLAINTEXT",
        ),
        (
            MINIMAL | {"kafka": {"bootstrap": "k:1", "security": "SSL", "passwordSecret": {"name": "p"}}},
            "kafka.passwordSecret is given, and kafka.security is SSL",
        ),
        (
            MINIMAL | {"kafka": {"bootstrap": "k:1", "caSecret": {"name": "ca"}}},
            "kafka.caSecret is given, and kafka.security is PLAINTEXT",
        ),
        ({"mode": "single"} | MINIMAL, "mode single embeds the log and the store: leave it empty, or use mode distributed"),
    ],
)
def test_values_that_contradict_each_other_are_refused(values: dict[str, Any], said: str) -> None:
    """What a pod would get twice, what would be ignored, and what the API server would refuse after half of an upgrade."""
    with pytest.raises(helm.HelmError, match=re.escape(said)):
        render(values)


def test_no_variable_of_the_chart_is_given_twice() -> None:
    """Each setting that the templates give has a place of its own, so `settings` refuses it."""
    given = {variable for template in (CHART / "templates").iterdir() for variable in VARIABLE.findall(template.read_text())}
    keys = {key: setting.variable for key, setting in SETTINGS.items()}
    assert given <= set(keys.values())
    for key in (key for key, variable in keys.items() if variable in given):
        section, _, name = key.rpartition(".")
        with pytest.raises(helm.HelmError, match=re.escape(f"settings.{key} cannot be set")):
            render(MINIMAL | {"settings": {section: {name: "x"}} if section else {name: "x"}})


VARIABLE: Final = re.compile(r"name: (INFRASAGE_[A-Z_]+)")


@pytest.mark.parametrize(("release", "name"), [("my.release", "my-release-infrasage-collector"), ("1st", None)])
def test_a_release_has_a_name_that_a_service_may_have(release: str, name: str | None) -> None:
    """Helm allows dots and a digit at the beginning; Kubernetes does not, and its schemas do not say so."""
    if name is None:
        with pytest.raises(helm.HelmError, match="must begin with a letter"):
            render(MINIMAL, name=release)
    else:
        assert [name, f"{name}-writer"] == [
            service["metadata"]["name"] for service in of_kind(render(MINIMAL, release), "Service")
        ]


@pytest.mark.parametrize("word", ["true", "no", "null", "on"])
@pytest.mark.parametrize("values", [MINIMAL, VALUES["single"]], ids=["distributed", "single"])
def test_a_name_that_yaml_takes_for_something_else_stays_text(word: str, values: dict[str, Any]) -> None:
    """Names of a release, a namespace (also a number) and a service account stay text; topology keys are free, too."""
    names = {"serviceAccount": {"name": "123"}, "topologySpread": {"keys": [word]}, "serviceMonitor": {"enabled": True}}
    for namespace in (word, "123"):
        manifests = render(values | names, word, namespace)
        for manifest in manifests:
            assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == word
            if manifest["kind"] not in FOREIGN:
                kubernetes_validate.validate(manifest, KUBERNETES[1], strict=True)
        assert {pod["serviceAccountName"] for _, pod, _ in pods(manifests)} == {"123"}
        for monitor in of_kind(manifests, "ServiceMonitor"):
            assert monitor["spec"]["namespaceSelector"] == {"matchNames": [namespace]}


@pytest.mark.parametrize(("given", "meant"), [(True, "yes"), (False, "no"), ("no", "no"), ("auto", "auto")])
def test_yes_and_no_need_no_quotes(given: object, meant: str) -> None:
    """In a file of values Helm reads `anonymous: no` as false."""
    for values in (MINIMAL, VALUES["single"]):
        receiver = next(pod for _, _, pod in pods(render(values | {"keys": {"anonymous": given}})) if pod["name"] != "writer")
        assert {"name": "INFRASAGE_TENANTS__ANONYMOUS", "value": meant} in receiver["env"]


def test_a_setting_of_null_is_the_default() -> None:
    """In Helm, null removes a value. A section whose lines are all comments is null, too."""
    for settings in ({"http": {"connections_max": None}}, {"open_files_reserve": None}, {"http": None}):
        assert render(MINIMAL) == render(MINIMAL | {"settings": settings})


def test_every_value_is_in_the_schema() -> None:
    """A default that the schema does not know would be refused for users that copy it."""
    values = YAML(typ="safe", pure=True).load((CHART / "values.yaml").read_text())
    with helm.Chart.load(str(CHART)) as chart:
        chart.validate_schema(values)


def test_a_long_name_is_cut() -> None:
    """Names of objects have at most 63 characters, with what the chart adds."""
    for manifest in render(MINIMAL, name="a-release-with-a-name-of-fifty-three-characters-here-"[:53].rstrip("-")):
        assert len(manifest["metadata"]["name"]) <= 63
