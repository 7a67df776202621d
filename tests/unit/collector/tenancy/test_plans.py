"""Plans: the built-in ones, those of the settings, and how they are named to a tenant that is over one."""

import pytest

from adapters.errors import EXCEEDS_PLAN
from collector.rate_limit.contract import exceeds_plan
from collector.tenancy.plans import BUILT_IN_PLANS, FREE, GIB, KIB, MIB, PRO, RATE_MAX, UNLIMITED, Dimension, Plan, Rate, plans


def test_built_in_plans_let_ordinary_batches_pass() -> None:
    """Free has 10 requests a second; two of the largest batches that senders make by default fit into a burst of any plan."""
    assert Rate(10, 10) == FREE.requests
    assert ["Free", "Pro", "Unlimited"] == list(BUILT_IN_PLANS)
    for plan in (FREE, PRO):
        assert plan.items is not None
        assert plan.items.burst >= 2 * 10_000
        assert plan.size_bytes is not None
        assert plan.size_bytes.burst >= 2 * 8_000_000
        assert plan.is_limited
    assert not UNLIMITED.is_limited


@pytest.mark.parametrize(
    ("plan", "dimension", "summary"),
    [
        (FREE, "requests", "Free (10 RPS)"),
        (FREE, "items", "Free (10,000 items/s)"),
        (FREE, "bytes", "Free (16 MiB/s)"),
        (PRO, "requests", "Pro (1,000 RPS)"),
        (UNLIMITED, "requests", "Unlimited"),
        (Plan("A", Rate(1, 1), Rate(1, 1), Rate(1, 1)), "items", "A (1 item/s)"),
        (Plan("A", Rate(1, 1), Rate(1, 1), Rate(1, 1)), "bytes", "A (1 byte/s)"),
        (Plan("A", None, None, Rate(1_500_000, 1)), "bytes", "A (1,500,000 bytes/s)"),
        (Plan("A", None, None, Rate(1536 * KIB, 1)), "bytes", "A (1,536 KiB/s)"),
        (Plan("A", None, None, Rate(2 * GIB, 1)), "bytes", "A (2 GiB/s)"),
    ],
)
def test_a_plan_is_named_with_its_rate(plan: Plan, dimension: Dimension, summary: str) -> None:
    """The answer to a tenant over its plan names the plan and the rate that it is over, exactly."""
    assert summary == plan.summary(dimension)


def test_the_settings_add_plans_and_replace_them() -> None:
    """A plan of the settings is added to the built-in ones, or replaces the one whose name it has."""
    given: dict[str, dict[str, int | str | None]] = {
        "Gold": {"requests_per_s": 50, "requests_burst": 75, "items_per_s": None, "bytes_per_s": 10 * MIB, "bytes_burst": None},
        "Free": {"requests_per_s": 1},
        "Open": {"repetitions": None},
        "Once": {"past_max_s": 60, "repetitions": "key", "retention_days": 90},
    }
    assert plans(given) == {
        "Free": Plan("Free", Rate(1, 1), None, None),
        "Pro": PRO,
        "Unlimited": UNLIMITED,
        "Gold": Plan("Gold", Rate(50, 75), None, Rate(10 * MIB, 10 * MIB)),
        "Open": Plan("Open", None, None, None),
        "Once": Plan("Once", None, None, None, 60, "key", 90),
    }
    assert plans({}) == BUILT_IN_PLANS


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("Gold", {"requests_per_s": 0}, "plan Gold: requests_per_s is 0; it must be from 1 to 4,294,967,296, or left out"),
        ("Gold", {"bytes_per_s": 1, "bytes_burst": RATE_MAX + 1}, "plan Gold: bytes_burst is 4,294,967,297; it must be"),
        ("Gold", {"items_burst": 5}, "plan Gold: items_burst is 5 but there is no items_per_s, whose burst it would be"),
        ("Gold", {"rps": 5}, "plan Gold: there is no rps; there are bytes_burst, bytes_per_s, items_burst"),
        (
            "Gold",
            {"repetitions": "hash"},
            "plan Gold: repetitions is 'hash'; it must be one of by_route, off, key, body, or left out",
        ),
        ("Very good", {}, "a plan is named 'Very good'"),
        ("", {}, "a plan is named ''"),
        ("a\tb", {}, "a plan is named 'a\\\\tb'"),
    ],
)
def test_what_can_be_no_plan(name: str, given: dict[str, int | str | None], says: str) -> None:
    """A number that can't be kept exactly, a burst without a rate, and an unknown setting are refused by name."""
    with pytest.raises(ValueError, match=f"^{says}"):
        plans({name: given})


def test_too_large_for_a_plan() -> None:
    """The refusal says how large the request is, what the plan allows at once, and what to do."""
    refused = exceeds_plan(FREE, "bytes", 160 * MIB, 128 * MIB)
    assert refused.reason == EXCEEDS_PLAN
    assert refused.message == (
        "the request is of 160 MiB, and the plan Free (16 MiB/s) never allows more than 128 MiB at once:"
        " send it in parts, or with a larger plan"
    )
