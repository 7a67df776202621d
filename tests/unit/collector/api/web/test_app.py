"""The web pages over a fake store: who sees what, who may do what, and what it costs."""

import asyncio
import html
import re
import threading
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from support.fakes.web import LETTER_ID, TRACE_ID, Web, form, web

from collector.api.health import NOT_USED, Health
from collector.api.web.app import WEB_PATHS
from collector.api.web.session import COOKIE
from collector.broker.contract import BrokerDown
from collector.dead_letters.queries import Entry
from collector.dead_letters.replay import ReplayOutcome
from collector.store.contract import StoreError

LETTER = f"/ui/dead-letters/{LETTER_ID}"
TRACE = f"/ui/traces/{TRACE_ID}"
WITH_A_KEY = ("/ui/dead-letters", LETTER, "/ui/logs", "/ui/traces", TRACE, "/ui/tenants")
PAGES = ("/", *WITH_A_KEY, "/ui/settings")
ACTOR = "key id-of-write of acme"
HOSTILE = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>{{ 7 * 7 }}"


class Replayer:
    """Notes what is done; everything succeeds, or ends with this `outcome` of a replay, or this `error`."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.outcome = ReplayOutcome(LETTER_ID, "replayed")
        self.error: Exception | None = None

    async def replay(self, entries: list[Entry], *, as_of: str, actor: str, note: str, payload: bytes | None = None) -> Any:
        if self.error is not None:
            raise self.error
        self.done.append(("replay", [entry.row["id"] for entry in entries], as_of, actor, note, payload))
        return [self.outcome]

    async def discard(self, entries: list[Entry], *, actor: str, note: str) -> Any:
        self.done.append(("discard", [entry.row["id"] for entry in entries], actor, note))
        return [ReplayOutcome(LETTER_ID, "discarded")]


def changing() -> tuple[Web, Replayer]:
    replayer = Replayer()
    return web(replayer=replayer), replayer  # type: ignore[arg-type]  # what pages need of one


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_is_shown_to_an_admin(path: str) -> None:
    async with web().browser("admin") as client:
        answer = await client.get(path)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert "plain" in answer.text or path == "/ui/tenants"


@pytest.mark.parametrize("path", [*WITH_A_KEY, "/ui/settings"])
@pytest.mark.parametrize(("scope", "status"), [(None, 401), ("unknown", 401), ("ingest", 403)])
async def test_a_page_is_not_shown_without_a_key_that_reads(path: str, scope: str | None, status: int) -> None:
    """The store is not asked; where a key is needed, the login form is shown, and leads back."""
    made = web()
    async with made.browser(scope) as client:
        answer = await client.get(path)
        assert answer.status_code == status
        assert made.store.asked == []
        if status == 401:
            assert f'name="next" value="{path}"' in answer.text


async def test_logging_in_leads_back_to_the_same_search() -> None:
    """It does so from a link that somebody was sent, or from a page whose key was revoked meanwhile."""
    async with web().browser("unknown") as client:
        page = (await client.get("/ui/logs", params={"text": 'a&b "c" ä', "minutes": "15"})).text
        found = re.search(r'name="next" value="([^"]*)"', page)
        assert found is not None
        target = html.unescape(found[1])
        answer = await client.post("/ui/login", data={"key": "readonly", "next": target})
        assert answer.headers["location"] == target
        assert 'value="a&amp;b &#34;c&#34; ä"' in (await client.get(target, headers={"x-api-key": "readonly"})).text


@pytest.mark.parametrize("scope", ["readonly", "write"])
async def test_settings_are_for_admins(scope: str) -> None:
    async with web().browser(scope) as client:
        assert (await client.get("/ui/settings")).status_code == 403


async def test_without_a_key_a_page_shows_what_everybody_may_see() -> None:
    """Health, and counts without names of tenants: no row of the store, and no tenant."""
    made = web()
    made.metrics.tenant("secret-tenant")
    async with made.browser() as client:
        answer = await client.get("/")
        assert answer.status_code == 200
        assert "embedded log" in answer.text
        assert "secret-tenant" not in answer.text
        assert made.store.asked == []


async def test_a_meter_is_red_where_top_is() -> None:
    """A browser shows the third of three ranges in red if the first is the best one."""
    made = web()
    made.metrics.watch_in_flight(lambda: 97, 100)
    async with made.browser() as client:
        page = (await client.get("/")).text
    assert '<meter value="0.97" low="0.8" high="0.95" optimum="0" aria-label="requests in flight">' in page


@pytest.mark.parametrize("path", ["/", *WITH_A_KEY])
@pytest.mark.parametrize("scope", ["readonly", "write"])
async def test_a_tenants_key_shows_its_own_rows(path: str, scope: str) -> None:
    """Every statement has the tenant's condition, whatever tenant the address names. (With real rows: tests/system.)"""
    made = web()
    async with made.browser(scope) as client:
        assert (await client.get(path, params={"tenant": "globex"})).status_code == 200
        assert made.store.asked or path == "/ui/tenants"
        for sql in made.store.asked:
            assert "TenantId = 'acme'" in sql
            assert "globex" not in sql


async def test_an_admin_may_name_a_tenant() -> None:
    made = web()
    async with made.browser("admin") as client:
        await client.get("/ui/logs", params={"tenant": "globex"})
        await client.get("/ui/logs")
        one, all_ = made.store.asked
        assert "TenantId = 'globex'" in one
        assert "TenantId = " not in all_


async def test_an_admin_finds_one_tenants_overview() -> None:
    """Names lead to it; it says whose it is, its links keep the tenant, and one leads back. Other keys have one tenant only."""
    made = web(plans={"acme": "Free"})
    async with made.browser("admin") as client:
        page = (await client.get("/")).text
        names = re.findall(r'<th scope="row"><a id="tenant-([^"]+)" href="/\?tenant=([^"]+)">', page)
        assert names
        assert "All tenants" not in page
        for name, link in names:
            assert (quote(name), f"tenant={link}") == (link, urlencode({"tenant": name}))
        assert '<a id="tenant-acme" href="/?tenant=acme">acme</a>' in (await client.get("/ui/tenants")).text
        page = (await client.get("/", params={"tenant": "a&b"})).text
        assert "What comes in from a&amp;b, last hour" in page
        assert '<a id="everybody" href="/">All tenants</a>' in page
        assert "/ui/dead-letters?state=open&amp;tenant=a%26b" in page
    async with made.browser("readonly") as client:
        page = (await client.get("/")).text
        assert "What comes in from acme, last hour" in page
        assert "?tenant=" not in page + (await client.get("/ui/tenants")).text


async def test_a_key_may_come_in_a_header() -> None:
    async with web().browser() as client:
        assert (await client.get("/ui/logs", headers={"x-api-key": "readonly"})).status_code == 200
        assert (await client.get("/ui/logs", headers={"authorization": "Bearer readonly"})).status_code == 200


async def test_logging_in_sets_the_cookie_and_logging_out_removes_it() -> None:
    async with web().browser() as client:
        answer = await client.post("/ui/login", data={"key": " readonly ", "next": "/ui/logs?minutes=15"})
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/logs?minutes=15")
        assert client.cookies[COOKIE] == "readonly"
        assert (await client.get("/ui/logs")).status_code == 200
        answer = await client.post("/ui/logout", data=form("readonly"))
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert COOKIE not in client.cookies


@pytest.mark.parametrize("scope", [None, "unknown"])
async def test_a_browser_whose_key_was_revoked_logs_out(scope: str | None) -> None:
    """A button of a page that was loaded before logs it out; a page of another site does not."""
    async with web().browser(scope) as client:
        answer = await client.post("/ui/logout", data=form("unknown"))
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert f"{COOKIE}=;" in answer.headers["set-cookie"]
        answer = await client.post("/ui/logout", data=form("unknown"), headers={"sec-fetch-site": "cross-site"})
        assert answer.status_code == 403


@pytest.mark.parametrize(("key", "status"), [("wrong", 401), ("", 401), ("ingest", 403)])
async def test_a_key_that_does_not_read_does_not_log_in(key: str, status: int) -> None:
    async with web().browser() as client:
        answer = await client.post("/ui/login", data={"key": key, "next": "/"})
        assert answer.status_code == status
        assert "set-cookie" not in answer.headers
        assert 'role="alert"' in answer.text


@pytest.mark.parametrize(
    "target",
    ["https://elsewhere.example/", "//elsewhere.example", "/\\elsewhere.example", "/metrics", "/ui/\r\nx: y", "", "/ui/ä"],
)
async def test_logging_in_leads_to_a_page_of_this_site_only(target: str) -> None:
    async with web().browser() as client:
        answer = await client.post("/ui/login", data={"key": "readonly", "next": target})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")


@pytest.mark.parametrize("do", ["replay", "edit", "discard"])
async def test_a_dead_letter_is_changed_by_its_form(do: str) -> None:
    """The page for it is shown again afterwards, by GET."""
    made, replayer = changing()
    async with made.browser("write") as client:
        fields = form("write", do=do, note="why", payload='{"a": 1}', as_of="received", confirmed="yes")
        answer = await client.post(LETTER, data=fields)
        assert answer.status_code == 303
        assert answer.headers["location"].startswith(f"{LETTER}?")
        payload = b'{"a": 1}' if do == "edit" else None
        expected = (
            (do, [LETTER_ID], ACTOR, "why") if do == "discard" else ("replay", [LETTER_ID], "received", ACTOR, "why", payload)
        )
        assert [expected] == replayer.done


async def test_chosen_dead_letters_are_changed_together() -> None:
    made, replayer = changing()
    async with made.browser("admin") as client:
        fields = form("admin", do="discard", id=LETTER_ID, back="reason=x&state=open&evil=1", confirmed="yes")
        answer = await client.post("/ui/dead-letters", data=fields)
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/dead-letters?reason=x&state=open&discarded=1")
        assert [("discard", [LETTER_ID], "key id-of-admin of admins", "")] == replayer.done
        assert "1 discarded" in (await client.get("/ui/dead-letters?discarded=1")).text


EDITED = '{"a": "</textarea><b>mine"}'


def given_back(page: str) -> str | None:
    """The text that the page has for editing or copying; None: it has none."""
    found = re.search(r"<textarea[^>]*>\n(.*?)</textarea>", page, re.DOTALL)
    return None if found is None else html.unescape(found[1])


@pytest.mark.parametrize(
    ("outcome", "status", "says"),
    [
        (
            ReplayOutcome(LETTER_ID, "rejected_again", "missing_value", "value is required"),
            422,
            "missing_value: value is required",
        ),
        (ReplayOutcome(LETTER_ID, "unchanged", message="it was replayed before"), 409, "it was replayed before"),
    ],
)
async def test_what_was_edited_comes_back_where_it_is_not_taken(outcome: ReplayOutcome, status: int, says: str) -> None:
    """The same form comes back with the reason, and with its other fields."""
    made, replayer = changing()
    replayer.outcome = outcome
    async with made.browser("write") as client:
        answer = await client.post(LETTER, data=form("write", do="edit", payload=EDITED, note="my note", as_of="received"))
        assert answer.status_code == status
        assert given_back(answer.text) == EDITED
        assert re.search(rf'role="alert">[^<]*{says}', answer.text)
        assert 'value="my note"' in answer.text
        assert '<option value="received" selected>' in answer.text
        assert 'value="edit">Replay as edited' in answer.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreError("it is away"), 503),
        (BrokerDown("it is away"), 503),
        (ValueError("it is wrong"), 400),
        (RuntimeError("a defect"), 500),
    ],
)
async def test_what_was_edited_comes_back_with_an_error(error: Exception, status: int) -> None:
    """It comes back whatever fails, and can be sent once more from that page."""
    made, replayer = changing()
    replayer.error = error
    async with made.browser("write") as client:
        answer = await client.post(LETTER, data=form("write", do="edit", payload=EDITED, note="my note", as_of="received"))
        assert answer.status_code == status
        assert given_back(answer.text) == EDITED
        assert 'role="alert"' in answer.text
        fields = dict(re.findall(r'type="hidden" name="(token|as_of|note)" value="([^"]*)"', answer.text.partition("<main")[2]))
        replayer.error = None
        again = await client.post(LETTER, data={**fields, "do": "edit", "payload": EDITED})
        assert (again.status_code, replayer.done[-1][2:]) == (303, ("received", ACTOR, "my note", EDITED.encode()))


async def test_what_was_edited_comes_back_where_the_store_is_away() -> None:
    """It comes back also if the entry could not be looked up."""
    made, _ = changing()
    made.store.error = StoreError("it is away")
    async with made.browser("write") as client:
        answer = await client.post(LETTER, data=form("write", do="edit", payload=EDITED))
        assert (answer.status_code, given_back(answer.text)) == (503, EDITED)


@pytest.mark.parametrize(
    ("scope", "token", "status"),
    [("unknown", "unknown", 401), (None, "", 401), ("write", "readonly", 403), ("readonly", "readonly", 403)],
)
async def test_what_was_edited_can_be_copied_where_the_key_is_refused(scope: str | None, token: str, status: int) -> None:
    """A key that was revoked or exchanged meanwhile. It is no form: another site's page might have sent it."""
    made, replayer = changing()
    async with made.browser(scope) as client:
        for headers in ({}, {"hx-request": "true"}):
            answer = await client.post(LETTER, data=form(token, do="edit", payload=EDITED), headers=headers)
            assert (answer.status_code, given_back(answer.text)) == (status, EDITED)
            assert 'value="edit"' not in answer.text
            assert " readonly>" in answer.text
            # The page with the text stays as it is.
            assert "hx-refresh" not in answer.headers
        assert replayer.done == []


async def test_a_form_of_an_edited_payload_is_never_too_large() -> None:
    """A browser lets nobody type more than the largest form has room for, also where each character takes nine bytes."""
    made, _ = changing()
    async with made.browser("write") as client:
        found = re.search(r'maxlength="(\d+)"[^>]*>\n', (await client.get(LETTER)).text)
        assert found is not None
        fields = form("write", do="edit", payload="\u20ac" * int(found[1]), note="\u20ac" * 1000, as_of="received")
        assert (await client.post(LETTER, data=fields)).status_code == 303


@pytest.mark.parametrize("path", [LETTER, "/ui/dead-letters"])
async def test_a_discard_is_confirmed(path: str) -> None:
    """The first form asks, says how many, and leads back; the form of the answer does it."""
    made, replayer = changing()
    async with made.browser("write") as client:
        fields = form("write", do="discard", id=LETTER_ID, note="why", back="state=open")
        answer = await client.post(path, data=fields)
        assert answer.status_code == 200
        assert "<h1>Discard 1 dead letter?</h1>" in answer.text
        assert replayer.done == []
        assert f'id="cancel" href="{path}' in answer.text
        answer = await client.post(path, data=confirming(answer.text))
        assert answer.status_code == 303
        assert replayer.done == [("discard", [LETTER_ID], ACTOR, "why")]
        made.store.state = "discarded"
        assert "There is nothing to discard" in (await client.post(path, data=fields)).text


def confirming(page: str) -> dict[str, str]:
    """The form of a confirmation."""
    content = page.partition("<main")[2]
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', content))
    button = re.search(r'<button name="do" value="(\w+)"', content)
    assert button is not None
    return {name: html.unescape(value) for name, value in fields.items()} | {"do": button[1]}


@pytest.mark.parametrize(("do", "verb"), [("discard_all", "Discard"), ("replay_all", "Replay")])
async def test_all_that_match_are_counted_first(do: str, verb: str) -> None:
    """They are counted by reason, with the list's filter, for the key's tenant. What comes afterwards is not meant."""
    made, replayer = changing()
    async with made.browser("write") as client:
        fields = form("write", do=do, note="why", back="state=open&service_id=s&tenant=globex")
        answer = await client.post("/ui/dead-letters", data=fields)
        assert f"<h1>{verb} 1,000 dead letters?</h1>" in answer.text
        assert "1,234 match" in answer.text
        assert "plain: 1,234" in answer.text
        assert replayer.done == []
        (counting,) = made.store.asked_of("dead_letters")
        made.store.asked.clear()
        assert (await client.post("/ui/dead-letters", data=confirming(answer.text))).status_code == 303
        listing = next(sql for sql in made.store.asked_of("dead_letters") if "LIMIT" in sql)
        for sql in (counting, listing):
            assert "TenantId = 'acme'" in sql
            assert "globex" not in sql
            assert "ServiceName = 's'" in sql
            assert "State IN ('open', 'rejected_again')" in sql
        until = re.search(r"KeptAt < \S+", counting)
        assert until is not None
        assert until[0] in listing
        assert replayer.done[0][0] == do.removesuffix("_all")


@pytest.mark.parametrize(
    ("do", "state"), [("discard_all", "discarded"), ("discard_all", "replayed"), ("replay_all", "replayed")]
)
async def test_what_can_not_be_done_is_not_offered(do: str, state: str) -> None:
    made, _ = changing()
    async with made.browser("write") as client:
        answer = await client.post("/ui/dead-letters", data=form("write", do=do, back=f"state={state}"))
        assert "There is nothing to" in answer.text
        assert "<button name" not in answer.text
        assert made.store.asked == []


async def test_all_that_match_are_changed_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a limit for one form, and the list says that there are more."""
    monkeypatch.setattr("collector.api.web.letter_actions.MATCHING_MAX", 1)
    made, replayer = changing()
    made.store.letters = 3
    async with made.browser("admin") as client:
        fields = form(
            "admin", do="discard_all", back="reason=missing_value", confirmed="yes", counted_until="2026-04-10T12:00:00Z"
        )
        answer = await client.post("/ui/dead-letters", data=fields)
        target = answer.headers["location"]
        assert target == "/ui/dead-letters?reason=missing_value&discarded=1&more=1"
        assert len(replayer.done) == 1
        page = (await client.get(target)).text
        assert "1 discarded. There are more that match." in page
        assert "more=1" not in page


@pytest.mark.parametrize("confirmed", ["", "yes"])
@pytest.mark.parametrize("fields", [{"back": "reason=no_such"}, {"counted_until": "yesterday"}])
async def test_a_wrong_filter_is_the_senders_mistake(confirmed: str, fields: dict[str, str]) -> None:
    """This holds also in a confirmed form, whose entries nobody has counted before."""
    made, replayer = changing()
    async with made.browser("admin") as client:
        sent = form("admin", do="discard_all", confirmed=confirmed, **fields)
        answer = await client.post("/ui/dead-letters", data=sent)
        assert (answer.status_code, replayer.done) == (400, [])


async def test_all_of_a_page_are_chosen_without_scripts() -> None:
    """A link chooses them and keeps the filter, the page and the focus. Used once more, it chooses none."""
    made, _ = changing()
    made.store.letters = 3
    async with made.browser("write") as client:
        path = "/ui/dead-letters?state=open"
        for checked, text in ((3, "Choose none of this page"), (0, "Choose all of this page")):
            page = (await client.get(path)).text
            found = re.search(r'id="choose-all" href="([^"]*)"', page)
            assert found is not None
            path = html.unescape(found[1])
            assert "state=open" in path
            assert path.endswith("#choose-all")
            page = (await client.get(path)).text
            assert page.count(" checked ") == checked
            assert text in page


@pytest.mark.parametrize("path", [LETTER, "/ui/dead-letters"])
@pytest.mark.parametrize(("scope", "status"), [(None, 401), ("ingest", 403), ("readonly", 403)])
async def test_only_keys_that_read_and_send_change_dead_letters(path: str, scope: str | None, status: int) -> None:
    made, replayer = changing()
    async with made.browser(scope) as client:
        answer = await client.post(path, data=form(scope or "", do="discard", id=LETTER_ID, confirmed="yes"))
        assert answer.status_code == status
        assert replayer.done == []


@pytest.mark.parametrize("path", [LETTER, "/ui/dead-letters"])
async def test_a_tenants_key_changes_its_own_dead_letters_only(path: str) -> None:
    """They are looked up with the tenant's condition, whatever tenant the address names."""
    made, _ = changing()
    async with made.browser("write") as client:
        await client.post(f"{path}?tenant=globex", data=form("write", do="discard", id=LETTER_ID))
        (sql,) = made.store.asked
        assert "TenantId = 'acme'" in sql


@pytest.mark.parametrize("path", [LETTER, "/ui/dead-letters", "/ui/logout"])
@pytest.mark.parametrize(
    ("fields", "headers"),
    [
        ({}, {}),
        ({"token": ""}, {}),
        ({"token": "0" * 32}, {}),
        (form("readonly"), {}),
        (form("write"), {"sec-fetch-site": "cross-site"}),
        (form("write"), {"sec-fetch-site": "same-site"}),
        (form("write"), {"origin": "https://elsewhere.example"}),
        (form("write"), {"origin": "null"}),
        (form("write"), {"origin": "http://collector:81"}),
    ],
)
async def test_a_form_of_another_site_changes_nothing(path: str, fields: dict[str, str], headers: dict[str, str]) -> None:
    """It lacks the token, has another key's, or the browser reports another site's page."""
    made, replayer = changing()
    async with made.browser("write") as client:
        sent = {**fields, "do": "discard", "id": LETTER_ID, "confirmed": "yes"}
        answer = await client.post(path, data=sent, headers=headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
        assert replayer.done == []


@pytest.mark.parametrize(
    "headers", [{"sec-fetch-site": "same-origin"}, {"origin": "http://collector"}, {"sec-fetch-site": "none", "origin": "null"}]
)
async def test_a_form_of_this_site_is_taken(headers: dict[str, str]) -> None:
    made, replayer = changing()
    async with made.browser("write") as client:
        fields = form("write", do="discard", confirmed="yes")
        assert (await client.post(LETTER, data=fields, headers=headers)).status_code == 303
        assert len(replayer.done) == 1


async def test_another_site_can_not_log_a_browser_in() -> None:
    async with web().browser() as client:
        answer = await client.post("/ui/login", data={"key": "readonly"}, headers={"origin": "https://elsewhere.example"})
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"a=" + b"x" * 5000, "application/x-www-form-urlencoded", 413),
        (b"a=1", "multipart/form-data; boundary=x", 400),
        (b"a=%ff", "application/x-www-form-urlencoded", 400),
        (b"&".join(b"a=1" for _ in range(1001)), "application/x-www-form-urlencoded", 400),
    ],
)
async def test_a_form_that_can_not_be_taken_is_refused(body: bytes, kind: str, status: int) -> None:
    made = web(form_bytes_max=4096)
    async with made.browser("write") as client:
        answer = await client.post(LETTER, content=body, headers={"content-type": kind})
        assert answer.status_code == status
        assert 'role="alert"' in answer.text


async def test_a_form_that_does_not_come_in_time_is_refused() -> None:
    app = web(body_timeout_s=0.01).app
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-type", b"application/x-www-form-urlencoded"), (b"x-api-key", b"write")]
    scope = {"type": "http", "method": "POST", "path": LETTER, "query_string": b"", "headers": headers, "scheme": "http"}
    await app(scope, receive, send)
    assert sent[0]["status"] == 408


@pytest.mark.parametrize("path", PAGES)
async def test_text_from_senders_is_escaped(path: str) -> None:
    """No element and no attribute is made of it, whatever the store, the settings or the address have."""
    async with web(HOSTILE).browser("admin") as client:
        answer = await client.get(path, params={"text": HOSTILE, "service": HOSTILE, "cursor": "", "tenant": HOSTILE})
        assert answer.status_code == 200
        assert "<script>alert" not in answer.text
        assert "<img" not in answer.text
        assert "49" not in re.sub(r"[0-9a-f-]{30,}", "", answer.text) or path == "/"
        assert answer.text.count("<textarea") == answer.text.count("</textarea>")


async def test_text_from_right_to_left_stays_in_its_place() -> None:
    """A service whose name turns the order of text around does not turn around the time behind it."""
    turned = "\u202eservice"
    async with web(turned).browser("admin") as client:
        assert f"<bdi>{turned}</bdi> · <bdi>{turned}</bdi> · " in (await client.get("/")).text
        assert f"<bdi>{turned}</bdi> <small>" in (await client.get(TRACE)).text


async def test_half_of_a_surrogate_pair_is_shown_all_the_same() -> None:
    async with web("a\ud800b").browser("admin") as client:
        for path in PAGES:
            answer = await client.get(path)
            assert answer.status_code == 200, path
            answer.content.decode()


@pytest.mark.parametrize("path", [*PAGES, "/ui/login", "/ui/nothing"])
async def test_a_page_loads_nothing_from_elsewhere(path: str) -> None:
    """Every script, style and picture is a file of this site, which is there; no script, style or handler is in the page."""
    async with web().browser("admin") as client:
        answer = await client.get(path)
        assert "http:" not in answer.text
        assert "https:" not in answer.text
        assert not re.search(r"<script(?! src=)|<style|\sstyle=|\son\w+=|javascript:", answer.text)
        sources = re.findall(r'(?:src|href)="(/ui/static/[^"]+)"', answer.text)
        assert len(sources) == 7
        for source in sources:
            file = await client.get(source)
            assert file.status_code == 200, source
            assert file.headers["x-content-type-options"] == "nosniff"
            assert "etag" in file.headers


@pytest.mark.parametrize("path", [*PAGES, "/ui/login", "/ui/nothing"])
async def test_every_page_has_the_headers_that_keep_others_out(path: str) -> None:
    async with web().browser("admin") as client:
        headers = (await client.get(path)).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"


@pytest.mark.parametrize("path", [*WITH_A_KEY, "/"])
async def test_a_store_that_fails_is_reported(path: str) -> None:
    """A page that needs it is 503; the overview still shows the rest."""
    made = web()
    made.store.error = StoreError("it is away")
    async with made.browser("admin") as client:
        answer = await client.get(path)
        if path == "/ui/tenants":
            assert answer.status_code == 200
        else:
            assert answer.status_code == (200 if path == "/" else 503)
            assert "it is away" in answer.text


@pytest.mark.parametrize("path", ["/", *(path for path in WITH_A_KEY if path != "/ui/tenants")])
async def test_no_page_waits_for_a_store_that_hangs(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and the next that asks waits for the same answer: the store has one question, not two."""
    monkeypatch.setattr("collector.api.web.app._WAIT_S", 0.05)
    made = web()
    hung = threading.Event()
    made.store.gate = hung
    async with made.browser("write") as client:
        try:
            for _ in range(2):
                answer = await client.get(path)
                assert "no answer within 0.05 s" in answer.text
                assert answer.status_code == (200 if path == "/" else 503)
            assert len(made.store.asked) == 1
        finally:
            hung.set()


@pytest.mark.parametrize(("difference", "says"), [(3, "difference: 3"), (None, "no difference is open")])
async def test_a_gateway_shows_what_the_writer_s_audits_found(difference: int | None, says: str) -> None:
    """They come from the store, and are shown to an admin, since they are of all tenants."""
    health = Health("ok", NOT_USED, NOT_USED, broker="Kafka", store=NOT_USED)
    made = web(health=lambda: health)
    made.store.difference = difference
    async with made.browser("admin") as client:
        assert says in (await client.get("/")).text
    async with made.browser("write") as client:
        assert "the process that writes to the store audits" in (await client.get("/")).text


async def test_a_gateway_without_a_store_shows_what_it_knows() -> None:
    async with web(has_store=False).browser("admin") as client:
        assert "clickhouse.url" in (await client.get("/")).text
        assert (await client.get("/ui/logs")).status_code == 503
        assert (await client.get("/ui/tenants")).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/ui/nothing", 404),
        ("GET", "/ui/", 404),
        ("GET", "/ui/static/nothing", 404),
        ("GET", "/ui/static/../app.py", 404),
        ("GET", "/ui/dead-letters/x", 404),
        ("GET", "/ui/traces/x", 404),
        ("GET", "/ui/logs?minutes=7", 400),
        ("GET", "/ui/logs?text=" + "x" * 1001, 400),
        ("GET", "/ui/dead-letters?reason=x", 400),
        ("GET", "/ui/dead-letters?cursor=x", 400),
        ("GET", "/ui/tenants?start=x", 400),
        ("POST", "/", 405),
        ("POST", "/ui/logs", 405),
        ("PUT", "/", 405),
    ],
)
async def test_what_is_not_there_is_said_so(method: str, path: str, status: int) -> None:
    async with web().browser("admin") as client:
        assert (await client.request(method, path)).status_code == status


async def test_many_viewers_cost_the_store_what_one_does() -> None:
    made = web()
    async with made.browser("admin") as client:
        await asyncio.gather(*(client.get(path) for path in ("/", "/ui/logs", "/ui/tenants") for _ in range(20)))
        assert len(made.store.asked) == len(set(made.store.asked))
        assert len(made.gathered) == 1


async def test_a_page_costs_the_same_with_ten_thousand_tenants() -> None:
    """The overview asks for the largest alone; the page of tenants shows 50, and finds any by its name."""
    few, many = web(), web(plans={f"tenant-{number:05}": "Free" for number in range(10_000)})
    for number in range(10_000):
        many.metrics.tenant(f"tenant-{number:05}")
    async with few.browser("admin") as small, many.browser("admin") as large:
        assert len((await large.get("/")).content) < 1.1 * len((await small.get("/")).content)
        listed = (await large.get("/ui/tenants")).text
        assert listed.count('<a id="tenant-tenant-') == 50
        assert "10,000 tenants" in listed
        assert "start=50" in listed
        found = (await large.get("/ui/tenants?text=09999")).text
        assert found.count('">tenant-09999</a>') == 1
    assert any("LIMIT 20" in sql for sql in many.store.asked_of("telemetry_batches"))


async def test_links_and_cookies_keep_a_path_that_comes_before() -> None:
    """Behind a proxy that serves the collector below a path, as ASGI's root_path says."""
    made = web()
    async with made.browser(root_path="/collector") as client:
        page = (await client.get("/")).text
        links = re.findall(r'(?:href|src|action|hx-get)="(?!#)([^"]*)', page)
        assert links
        assert [] == [link for link in links if not link.startswith("/collector/")]
        answer = await client.post("/ui/login", data={"key": "readonly", "next": "/ui/logs"})
        assert answer.headers["location"] == "/collector/ui/logs"
        assert "Path=/collector;" in answer.headers["set-cookie"]


def test_the_paths_are_counted_together() -> None:
    """No address which a client invents becomes a label of a metric."""
    assert {"/", "/ui/"} == WEB_PATHS
