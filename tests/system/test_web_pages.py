"""The web pages of a real collector: two tenants, every scope, and what a person does there; then the same in a browser."""

import html
import os
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page
from support.processes.chromium import chromium
from support.processes.program import Program, run, started
from support.waiting import until

from collector.tenancy import keys
from collector.tenancy.scopes import Scope

TENANTS: Final = ("acme", "globex")
NOW: Final = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
TRACE: Final = {"acme": "aa" * 16, "globex": "bb" * 16}
PAGES: Final = ("/", "/ui/dead-letters", "/ui/logs", "/ui/traces", "/ui/tenants", "/ui/settings")
# With this, the pages are drawn into docs/use as the documentation has them.
SCREENSHOTS: Final = os.environ.get("INFRASAGE_SCREENSHOTS", "")


class Served(Program):
    """`serve`, with keys of every scope of two tenants, who have each sent a bit of everything."""

    def __init__(self, place: Path, **settings: object) -> None:
        super().__init__(place, tenants__keys_reload_s=0.1, audit__interval_s=5, audit__delay_s=1, **settings)
        self.keys: dict[tuple[str, Scope], str] = {}

    def make_keys(self) -> None:
        file = self.data_dir / keys.FILE_NAME
        for tenant in TENANTS:
            for scope in (Scope.INGEST, Scope.READONLY, Scope.WRITE):
                self.keys[tenant, scope] = keys.create(file, tenant=tenant, scope=scope, plan="Pro", now=datetime.now(UTC)).text
        self.keys["ops", Scope.ADMIN] = keys.create(
            file, tenant="ops", scope=Scope.ADMIN, plan="Free", now=datetime.now(UTC)
        ).text
        until(lambda: self.get("/ui/logs", self.keys["ops", Scope.ADMIN]).status_code == 200)

    def get(self, path: str, key: str | None, **query: str) -> httpx.Response:
        headers = {} if key is None else {"cookie": f"infrasage_key={key}"}
        return httpx.get(f"{self.http}{path}", params=query, headers=headers, timeout=60)

    def send(self, tenant: str) -> None:
        """A metric, a log and a trace are stored, one of them repaired, and two items are rejected."""
        headers = {"X-API-Key": self.keys[tenant, Scope.WRITE]}
        records = [
            {"service_id": f"{tenant}-service", "metric_name": "m", "value": 1, "timestamp": NOW},
            {"service_id": f"{tenant}-service", "type": "log", "body": f"{tenant} says hello <b>", "timestamp": NOW},
            {"service_id": f"{tenant}-service", "metric_name": "m", "timestamp": NOW},
            {"metric_name": f"{tenant}-orphan", "value": 1, "timestamp": NOW},
        ]
        answer = httpx.post(f"{self.http}/api/v1/telemetry/batch", json=records, headers=headers, timeout=30)
        assert answer.json()["failed"] == 2, answer.text
        now = time.time_ns()
        spans = [
            {"traceId": TRACE[tenant], "spanId": f"{n:016x}", "parentSpanId": f"{n - 1:016x}" if n > 1 else "", "kind": 2}
            | {"name": f"{tenant}-span-{n}", "startTimeUnixNano": str(now + n), "endTimeUnixNano": str(now + 10**8)}
            for n in (1, 2, 3)
        ]
        resource = {"attributes": [{"key": "service.name", "value": {"stringValue": f"{tenant}-service"}}]}
        body = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": spans}]}]}
        assert httpx.post(f"{self.http}/v1/traces", json=body, headers=headers, timeout=30).status_code == 200
        text = '{"resourceLogs": [{"scopeLogs": [{"logRecords": [{"body": {"stringValue": "x \ud800"}}]}]}]}'
        sent = text.encode(errors="surrogatepass")
        answer = httpx.post(
            f"{self.http}/v1/logs", content=sent, headers={**headers, "content-type": "application/json"}, timeout=30
        )
        assert "invalid_text" in answer.text

    def send_long_names(self) -> None:
        """Of services and metrics, without a place to break them, of a tenant whose name is long too."""
        tenant, name = "t" * 128, "s" * 200
        file = self.data_dir / keys.FILE_NAME
        key = keys.create(file, tenant=tenant, scope=Scope.WRITE, plan="Pro", now=datetime.now(UTC)).text
        records = [
            {"service_id": name, "type": "log", "body": "b" * 300, "timestamp": NOW},
            {"service_id": name, "type": "trace", "timestamp": NOW, "name": "n" * 200},
            {"service_id": name, "metric_name": "m" * 200, "timestamp": NOW},
        ]

        def sent() -> bool:
            answer = httpx.post(f"{self.http}/api/v1/telemetry/batch", json=records, headers={"X-API-Key": key}, timeout=30)
            return answer.status_code != 401

        until(sent)  # once the key is in force
        admin = self.keys["ops", Scope.ADMIN]
        until(lambda: name in self.get("/ui/logs", admin, tenant=tenant).text)
        until(lambda: tenant in self.get("/ui/dead-letters", admin, tenant=tenant).text)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with started(Served(tmp_path_factory.mktemp("web") / "data")) as running:
        running.make_keys()
        for tenant in TENANTS:
            running.send(tenant)
        admin = running.keys["ops", Scope.ADMIN]
        until(lambda: all(f"{tenant} says hello" in running.get("/ui/logs", admin, text=tenant).text for tenant in TENANTS))
        until(lambda: "everything adds up" in running.get("/", admin).text)
        yield running


def letter_of(served: Served, key: str, reason: str) -> str:
    """The path of the newest one that is open."""
    page = served.get("/ui/dead-letters", key, reason=reason, state="open").text
    found = re.search(r'href="(/ui/dead-letters/[0-9a-f-]{36})"', page)
    assert found is not None, page
    return found[1]


@pytest.mark.parametrize("tenant", TENANTS)
@pytest.mark.parametrize("scope", [Scope.READONLY, Scope.WRITE])
def test_a_tenant_sees_its_own_rows_only(served: Served, tenant: str, scope: Scope) -> None:
    """Every page shows all kinds of its own rows, and nothing of the other tenant, whatever tenant the address names."""
    key = served.keys[tenant, scope]
    other = next(name for name in TENANTS if name != tenant)
    shown = ""
    for path in (*PAGES[:-1], f"/ui/traces/{TRACE[tenant]}", letter_of(served, key, "missing_service_id")):
        for query in ({}, {"tenant": other}, {"text": other}, {"text": TRACE[other]}):
            answer = served.get(path, key, **query)
            assert answer.status_code == 200, (path, answer.text)
            # The search box has what was typed.
            text = re.sub(r'(value="[^"]*"|"/[^"]*")', "", answer.text)
            assert other not in text, path
            assert TRACE[other] not in text, path
            shown += text
    for own in (
        f"{tenant} says hello",
        f"{tenant}-span-3",
        f"{tenant}-orphan",
        "missing_value",
        "invalid_text",
        f"{tenant}-service",
    ):
        assert own in html.unescape(shown), own
    assert served.get(f"/ui/traces/{TRACE[other]}", key).status_code == 404
    assert served.get(letter_of(served, served.keys[other, scope], "missing_value"), key).status_code == 404
    assert served.get("/ui/settings", key).status_code == 403


def test_an_admin_sees_everything(served: Served) -> None:
    admin = served.keys["ops", Scope.ADMIN]
    overview = served.get("/", admin).text
    for expected in (*TENANTS, "everything adds up", "infrasage.logs", "missing_value", "invalid_text", "local_log.bytes_max"):
        assert expected in overview, expected
    for tenant in TENANTS:
        assert f"{tenant} says hello &lt;b&gt;" in served.get("/ui/logs", admin).text
        assert f"{tenant}-span-1" in served.get("/ui/traces", admin).text
        assert (
            f'<a id="tenant-{tenant}" href="/?tenant={tenant}">{tenant}</a></th><td data-label="plan">Pro</td>'
            in served.get("/ui/tenants", admin).text
        )
        assert served.get("/ui/logs", admin, tenant=tenant).text.count("says hello") == 1
    settings = served.get("/ui/settings", admin, changed="1").text
    assert "audit.interval_s" in settings
    assert "kafka.bootstrap" not in settings


@pytest.mark.parametrize("tenant", TENANTS)
def test_a_key_that_only_sends_sees_nothing(served: Served, tenant: str) -> None:
    for path in PAGES:
        assert served.get(path, served.keys[tenant, Scope.INGEST]).status_code == 403


def post(served: Served, path: str, key: str, **fields: str) -> httpx.Response:
    """As the form of that page: with its token."""
    token = re.search(r'name="token" value="([0-9a-f]+)"', served.get(path, key).text)
    fields |= {"token": "" if token is None else token[1]}
    return httpx.post(f"{served.http}{path}", data=fields, headers={"cookie": f"infrasage_key={key}"}, timeout=60)


def test_a_dead_letter_is_edited_replayed_and_stored(served: Served) -> None:
    """Its own tenant does it. The record is stored once, and the entry has the name of the key that did it."""
    key = served.keys["acme", Scope.WRITE]
    path = letter_of(served, key, "missing_service_id")
    page = served.get(path, key).text
    text = html.unescape(page.partition("<textarea")[2].partition(">\n")[2].partition("</textarea>")[0])
    edited = text.replace('"metric_name"', '"service_id": "mine", "metric_name"')
    answer = post(served, path, key, do="edit", payload=edited, note="by hand")
    assert (answer.status_code, answer.headers["location"]) == (303, f"{path}?replayed=1")
    page = served.get(path, key).text
    assert ">replayed</span>" in page
    assert "(by hand)" in page
    assert "of acme" in page
    sql = "SELECT count() FROM otel_metrics_gauge WHERE ServiceName = 'mine' AND TenantId = 'acme' FORMAT TSV"
    assert run("query", sql, "--data-dir", served.data_dir).stdout == "1\n"
    again = post(served, path, key, do="edit", payload=edited)
    assert again.status_code == 409
    assert "it was replayed before" in again.text
    assert edited in html.unescape(again.text)


def test_a_replay_that_is_rejected_again_says_why(served: Served) -> None:
    key = served.keys["acme", Scope.WRITE]
    path = letter_of(served, key, "missing_value")
    assert post(served, path, key, do="replay").headers["location"] == f"{path}?rejected_again=1"
    assert "missing_value, value is required" in served.get(path, key).text
    done = post(served, path, key, do="discard", note="not needed", confirmed="yes")
    assert done.headers["location"] == f"{path}?discarded=1"
    assert ">discarded</span>" in served.get(path, key).text


def test_dead_letters_of_others_are_not_changed(served: Served) -> None:
    """They are changed neither by their address nor by their id in a form."""
    theirs = letter_of(served, served.keys["globex", Scope.WRITE], "missing_service_id")
    key = served.keys["acme", Scope.WRITE]
    token = re.search(r'name="token" value="([0-9a-f]+)"', served.get("/", key).text)
    assert token is not None
    fields = {"token": token[1], "do": "discard", "id": theirs.rpartition("/")[2], "confirmed": "yes"}
    cookie = {"cookie": f"infrasage_key={key}"}
    assert httpx.post(f"{served.http}{theirs}", data=fields, headers=cookie, timeout=60).status_code == 404
    httpx.post(f"{served.http}/ui/dead-letters", data=fields, headers=cookie, timeout=60)
    fields |= {"do": "discard_all", "back": "tenant=globex"}
    httpx.post(f"{served.http}/ui/dead-letters", data=fields, headers=cookie, timeout=60)
    assert theirs == letter_of(served, served.keys["globex", Scope.WRITE], "missing_service_id")


def test_a_key_that_is_revoked_ends_its_session(served: Served) -> None:
    made = keys.create(
        served.data_dir / keys.FILE_NAME, tenant="gone", scope=Scope.READONLY, plan="Free", now=datetime.now(UTC)
    )
    until(lambda: served.get("/ui/logs", made.text).status_code == 200)
    keys.end(served.data_dir / keys.FILE_NAME, made.key.id, at=datetime.now(UTC), now=datetime.now(UTC))
    until(lambda: served.get("/ui/logs", made.text).status_code == 401)


# In a browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium("no page was tried in a browser") as opened:
        yield opened


class Visitor:
    """A person with a browser, whose faults are collected."""

    def __init__(self, context: BrowserContext, served: Served) -> None:
        self.served = served
        self.context = context
        self.page: Page = context.new_page()
        self.faults: list[str] = []
        self.asked: list[str] = []
        self.page.on("console", lambda said: self.faults.append(said.text) if said.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self.asked.append(request.url))

    def log_in(self, key: str) -> None:
        self.go("/ui/login")
        self.page.locator(":focus").wait_for()  # the field gets the focus by itself, a moment after the page has loaded
        self.page.keyboard.type(key)
        self.page.keyboard.press("Enter")
        self.page.wait_for_url(f"{self.served.http}/")

    def go(self, path: str) -> None:
        self.page.goto(f"{self.served.http}{path}")

    def reads(self, selector: str, text: str) -> None:
        """Wait until such an element has the text: on a busy machine the next page comes after a click has returned."""
        self.page.locator(selector, has_text=text).first.wait_for()


@pytest.fixture
def visit(browser: Browser, served: Served) -> Iterator[Any]:
    """Make a visitor, with the settings of its browser. At the end nothing was loaded from elsewhere, and nothing failed."""
    visitors: list[Visitor] = []

    def make(**settings: Any) -> Visitor:
        visitors.append(Visitor(browser.new_context(**settings), served))
        return visitors[-1]

    yield make
    for visitor in visitors:
        visitor.context.close()
        assert [] == visitor.faults
        assert [] == [url for url in visitor.asked if not url.startswith(f"{served.http}/")]


PHONE: Final = {"width": 360, "height": 800}
DESKTOP: Final = {"width": 1280, "height": 900}
_SCREENSHOTS: Final = {
    ("/", "light", 1280): "web-overview.png",
    ("/", "dark", 360): "web-overview-phone.png",
    ("/ui/dead-letters", "light", 1280): "web-dead-letters.png",
}


@pytest.mark.parametrize(("scheme", "size"), [("dark", PHONE), ("light", DESKTOP)])
def test_every_page_can_be_read(visit: Any, served: Served, scheme: str, size: dict[str, int]) -> None:
    """It fits its window, and nothing in its tables is beyond its edge, however long names are; its text contrasts with
    what is behind it (WCAG AA), and its chart is drawn."""
    visitor = visit(color_scheme=scheme, viewport=size)
    visitor.log_in(served.keys["ops", Scope.ADMIN])
    if not SCREENSHOTS:
        served.send_long_names()
    letter = letter_of(served, served.keys["globex", Scope.WRITE], "missing_service_id")
    for path in (*PAGES, letter, f"/ui/traces/{TRACE['acme']}"):
        visitor.go(path)
        assert visitor.page.evaluate("document.documentElement.scrollWidth") <= size["width"], path
        contrasts = visitor.page.evaluate(_CONTRASTS)
        assert [] == [found for found in contrasts if found[0] < 4.5], path
        assert [] == visitor.page.evaluate(_OUT_OF_SIGHT), path
        if SCREENSHOTS and (path, scheme, size["width"]) in _SCREENSHOTS:
            visitor.page.screenshot(path=f"{SCREENSHOTS}/{_SCREENSHOTS[path, scheme, size['width']]}", full_page=True)
    visitor.go("/")
    until(lambda: visitor.page.locator(".chart canvas").count() == 1)


def test_everything_works_by_keyboard(visit: Any, served: Served) -> None:
    """From the top of a page Tab reaches the content's link first, then each page; a search begins while one types."""
    visitor = visit()
    visitor.log_in(served.keys["ops", Scope.ADMIN])
    page = visitor.page
    page.keyboard.press("Tab")
    until(lambda: page.evaluate("document.activeElement.textContent") == "Skip to the content")
    visitor.go("/ui/logs")
    page.locator("input[name=text]").focus()
    page.keyboard.type("GLOBEX SAYS")
    until(lambda: page.evaluate("document.querySelectorAll('#results tbody tr').length") == 1)
    visitor.reads("#results", "globex says hello <b>")
    until(lambda: "text=GLOBEX" in page.url)
    assert page.evaluate("document.activeElement.name") == "text"
    visitor.go("/ui/dead-letters")
    page.locator("#choose-all").focus()
    page.keyboard.press("Enter")
    page.wait_for_url("**chosen=all#choose-all")
    page.keyboard.press("Tab")
    until(lambda: page.evaluate("document.activeElement.name") == "id")


def test_the_overview_keeps_itself_up_to_date(visit: Any, served: Served) -> None:
    visitor = visit()
    visitor.page.clock.install()
    visitor.log_in(served.keys["ops", Scope.ADMIN])
    before = visitor.page.inner_text("#live > p:last-child")

    def has_changed() -> bool:
        visitor.page.clock.run_for(10_000)
        return bool(visitor.page.inner_text("#live > p:last-child") != before)

    def has_one_chart() -> bool:
        visitor.page.clock.run_for(1_000)  # charts are drawn by timers of the page
        return bool(visitor.page.locator(".chart canvas").count() == 1)

    until(has_changed)
    until(has_one_chart)


def test_a_page_says_when_the_collector_is_away(visit: Any, served: Served) -> None:
    """Open pages do not pass old answers off as new ones: the overview that refreshes itself, and a search that fails."""
    visitor = visit()
    page = visitor.page
    page.clock.install()
    visitor.log_in(served.keys["ops", Scope.ADMIN])
    notice = page.locator("#notice")
    assert not notice.is_visible()

    def says(text: str) -> bool:
        page.clock.run_for(10_000)
        return text in notice.inner_text()

    page.route("**/*", lambda route: route.abort())
    until(lambda: says("The collector does not answer. This page shows the answer of "))
    page.unroute("**/*")
    until(lambda: says("") and not notice.is_visible())

    visitor.go("/ui/logs?text=hello")
    page.evaluate("document.querySelector('select[name=minutes]').selectedOptions[0].value = '77'")
    page.fill("input[name=text]", "nothing like it")
    until(lambda: says("minutes must be one of"))
    page.route("**/*", lambda route: route.fulfill(status=503, body='{"error": "busy"}'))
    page.fill("input[name=text]", "nothing at all like it")
    until(lambda: says("The collector answered with status 503. "))
    visitor.faults.clear()  # the browser logs what failed


def test_the_legend_of_a_chart_has_figures(visit: Any, served: Served) -> None:
    """Those of the last minute, while no pointer is on the chart."""
    visitor = visit()
    visitor.log_in(served.keys["ops", Scope.ADMIN])
    figures = visitor.page.locator(".u-legend .u-value")
    figures.first.wait_for()
    time_, *values = figures.all_inner_texts()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d", time_)
    assert values
    assert [] == [value for value in values if not re.fullmatch(r"[\d.,]+ items/s", value)]


def test_a_dead_letter_is_edited_in_the_browser(visit: Any, served: Served) -> None:
    """Found by its reason, edited, replayed; and one that is chosen from the list is discarded. Without scripts too."""
    for has_scripts in (True, False):
        served.send("globex")
        served.send("globex")
        visitor = visit(java_script_enabled=has_scripts)
        page = visitor.page
        visitor.log_in(served.keys["globex", Scope.WRITE])
        visitor.go("/ui/dead-letters")
        page.select_option("select[name=reason]", "missing_service_id")
        page.select_option("select[name=state]", "open")
        page.click("text=Show")
        page.wait_for_url("**reason=missing_service_id*")
        page.click("td.time a >> nth=0")
        text = page.input_value("#payload")
        wrong = text.replace('"metric_name"', '"service_id": 7, "metric_name"')
        page.fill("#payload", wrong)
        page.fill("input[name=note]", "a try")
        page.click("text=Replay as edited")
        visitor.reads("main [role=alert]", "What you edited was not stored: ")
        assert (page.input_value("#payload"), page.input_value("input[name=note]")) == (wrong, "a try")
        page.fill("#payload", text.replace('"metric_name"', '"service_id": "by-browser", "metric_name"'))
        page.click("text=Replay as edited")
        visitor.reads("h1", "replayed")
        visitor.faults.clear()  # the browser logs the refusal
        visitor.go("/ui/dead-letters?reason=missing_value&state=open")
        page.check("input[name=id] >> nth=0")
        page.click("text=Discard the chosen")
        visitor.reads("h1", "Discard 1 dead letter?")
        page.click("main button")
        visitor.reads("[role=status]", "1 discarded")
        assert "reason=missing_value" in page.url
        page.click("text=Choose all of this page")
        visitor.reads("main a", "Choose none of this page")
        assert page.locator("input[name=id]:checked").count() == page.locator("input[name=id]").count() > 0
        page.click("text=Discard all that match")
        visitor.reads("h1", "Discard ")
        page.click("main button")
        visitor.reads("main", "There are none.")
        page.click("text=Log out")
        visitor.reads("main", "This is what everyone may see")
    sql = "SELECT count() FROM otel_metrics_gauge WHERE ServiceName = 'by-browser' AND TenantId = 'globex' FORMAT TSV"
    assert run("query", sql, "--data-dir", served.data_dir).stdout == "2\n"


def test_what_was_edited_outlives_the_collector(visit: Any, served: Served) -> None:
    """With scripts, a form that nobody answers leaves its page as it is: the text stays, and a notice says why."""
    served.send("globex")
    visitor = visit()
    page = visitor.page
    visitor.log_in(served.keys["globex", Scope.WRITE])
    visitor.go(letter_of(served, served.keys["globex", Scope.WRITE], "missing_value"))
    page.fill("#payload", "mine")
    page.route("**/*", lambda route: route.abort())
    page.click("text=Replay as edited")
    visitor.reads("#notice", "The collector does not answer")
    assert page.input_value("#payload") == "mine"
    page.unroute("**/*")
    page.route("**/*", lambda route: route.fulfill(status=503, body='{"error": "busy"}'))
    page.click("text=Replay as edited")
    visitor.reads("#notice", "The collector answered with status 503")
    assert page.input_value("#payload") == "mine"
    page.unroute("**/*")
    page.click("text=Replay as edited")
    visitor.reads("main [role=alert]", "What you edited was not stored: ")
    assert page.input_value("#payload") == "mine"
    visitor.faults.clear()  # the browser logs what failed


def test_another_site_reaches_nothing(visit: Any, served: Served, browser: Browser) -> None:
    """A page elsewhere sends a form with a browser that is logged in: no cookie goes with it, and nothing changes."""
    visitor = visit()
    visitor.log_in(served.keys["globex", Scope.WRITE])
    served.send("globex")
    path = letter_of(served, served.keys["globex", Scope.WRITE], "missing_value")
    form = f'<form method="post" action="{served.http}{path}"><input name="do" value="discard"></form>'
    visitor.page.route("http://elsewhere.example/", lambda route: route.fulfill(body=form, content_type="text/html"))
    visitor.page.goto("http://elsewhere.example/")
    sent: list[int] = []
    visitor.page.on("response", lambda response: sent.append(response.status) if path in response.url else None)
    try:
        with visitor.page.expect_navigation():
            visitor.page.evaluate("document.forms[0].submit()")
    except Error:
        pass  # the browser itself may refuse it
    assert sent in ([], [401], [403])
    assert path == letter_of(served, served.keys["globex", Scope.WRITE], "missing_value")
    visitor.faults.clear()  # the browser logs the refusal
    visitor.asked.clear()


# What is beyond the window's edge: cells of tables and what is in them, also in a box that scrolls. Headers that are hidden are
# for screen readers alone.
_OUT_OF_SIGHT: Final = """() => [...document.querySelectorAll("main table *")]
  .filter((element) => !element.closest("thead") || getComputedStyle(element.closest("thead")).position !== "absolute")
  .filter((element) => element.getBoundingClientRect().right > innerWidth)
  .map((element) => element.tagName + ": " + element.textContent.trim().slice(0, 40))"""

# For each element with text of its own: the contrast of its colour with the nearest background behind it, and the text.
_CONTRASTS: Final = """() => {
  const channel = (value) => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const behind = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = numbers(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] > 0) return colour;
    }
    return [255, 255, 255];
  };
  return [...document.querySelectorAll("main *, header *")]
    .filter((element) => element.checkVisibility())
    .filter((element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .map((element) => {
      const [one, other] = [light(numbers(getComputedStyle(element).color)), light(behind(element))].sort((a, b) => b - a);
      return [(one + 0.05) / (other + 0.05), element.tagName + ": " + element.textContent.trim().slice(0, 40)];
    });
}"""
