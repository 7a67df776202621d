"""collector/ingest/charges.py: a plan counts what requests cost, whatever becomes of them."""

import pytest
from support.attacks import (
    HEAVY_METADATA,
    LOGS,
    NATIVE_BATCH,
    PROTOBUF,
    SMALL,
    Attack,
    honest_logs,
    json_logs,
    native_attributes,
)
from support.attacks import JSON as JSON_HEADERS
from support.fakes.receiving import NOW_UNIX_NANO, Receivers, receivers
from support.limits import DEFAULT
from support.tenants import on_plans

from adapters.record import Header
from collector.ingest.validate import LimitRules
from collector.rate_limit.local import LocalLimiter
from collector.receivers.http.telemetry_request import Head
from collector.receivers.routes import http_routes
from collector.tenancy.plans import Plan, Rate

MIB = 1 << 20
BYTES = Rate(1, 8 * MIB)
# Each is less than 300 KB, and as much work as honest bodies of many megabytes.
SPANS, TEXTS, EXEMPLARS = (
    next(attack for attack in (*SMALL, *HEAVY_METADATA) if attack.name.startswith(name))
    for name in ("130,000 empty spans", "40,000 texts that are not UTF-8", "130,000 exemplars")
)
MALFORMED = TEXTS._replace(body=lambda: TEXTS.body() + b"}")
HONEST = {
    "logs": Attack("", LOGS, PROTOBUF, lambda: honest_logs(MIB, NOW_UNIX_NANO)),
    "JSON": Attack("", LOGS, JSON_HEADERS, lambda: json_logs(b",".join([b'{"body":{"stringValue":"a line"}}'] * 5_000))),
    "native": Attack("", NATIVE_BATCH, JSON_HEADERS, lambda: native_attributes(1_000, 20)),
}


async def answers(made: Receivers, attack: Attack, count: int) -> list[int]:
    """The statuses with which the tenant is answered that sends it so often, all at one time."""
    headers, body = attack.sent()
    headers |= {"x-api-key": "acme", "content-length": str(len(body))}
    statuses = []
    for _ in range(count):
        head = Head("POST")
        for name, value in headers.items():
            head.add(name.encode(), value.encode())
        request = made.app.receiver.new_request(attack.path, head)
        if request.admit() and request.feed(body):
            await request.finish()
        assert request.answer is not None
        statuses.append(request.answer.status)
    return statuses


def on_plan(plan: Plan) -> Receivers:
    return receivers(find=on_plans({"acme": plan}), limiter=LocalLimiter(lambda: 0))


@pytest.mark.parametrize("attack", [TEXTS, EXEMPLARS], ids=["texts", "exemplars"])
async def test_work_beyond_that_of_honest_bodies_counts(attack: Attack) -> None:
    """It counts as bytes, but at most as half of what the plan has at once: so two pass, and fewer than by their bytes."""
    made = on_plan(Plan("Small", None, None, BYTES))
    first, second, *others = await answers(made, attack, 5)
    assert first == second != 429
    assert [429, 429, 429] == others


@pytest.mark.parametrize(("attack", "status"), [(SPANS, 413), (MALFORMED, 400)], ids=["too many rows", "malformed"])
async def test_work_of_what_is_refused_counts(attack: Attack, status: int) -> None:
    """Otherwise it would be refused, and sent again, without end."""
    made = on_plan(Plan("Small", None, None, BYTES))
    statuses = await answers(made, attack, 12)
    assert status == statuses[0]
    assert 429 == statuses[-1]


@pytest.mark.parametrize("name", HONEST)
def test_the_work_of_honest_bodies_is_less_than_twice_their_rows(name: str) -> None:
    """So their plans count what they did."""
    attack = HONEST[name]
    body = attack.body()
    format_ = http_routes(10_000)[attack.path].format(attack.headers["content-type"].encode())
    assert format_ is not None
    rules = LimitRules(DEFAULT, NOW_UNIX_NANO)
    adapted = format_.input.adapt(body, Header("acme", format_.input.source, NOW_UNIX_NANO, bytes(16)), rules, MIB)
    assert 0 < rules.work_bytes <= 2 * max(len(body), adapted.row_bytes)
