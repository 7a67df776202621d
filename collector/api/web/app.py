"""The web pages, as an ASGI application for WEB_PATHS.

Invariants:
1. A page shows no more than the API shows for the same key. Without a key, it shows what /healthz and /metrics show to
   everybody. With a tenant's key, it shows the tenant's own rows, and with a key of scope admin all rows
   (test_a_tenants_key_shows_its_own_rows, test_without_a_key_a_page_shows_what_everybody_may_see).
2. Dead letters are changed only with keys of scope write or admin, by forms that a page of this site sent
   (test_only_keys_that_read_and_send_change_dead_letters, test_a_form_of_another_site_changes_nothing).
3. The cost of viewers is bounded: static files are in memory, viewers share answers of the store, and the number of tenants
   changes nothing (test_a_page_costs_the_same_with_ten_thousand_tenants).
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final
from urllib.parse import parse_qsl, quote

import structlog
from starlette.types import Receive, Scope, Send

from adapters.errors import (
    INSUFFICIENT_SCOPE,
    INTERNAL,
    INVALID_PARAMETER,
    METHOD_NOT_ALLOWED,
    MISSING_API_KEY,
    NOT_FOUND,
    STORE_UNAVAILABLE,
    RequestRefused,
)
from collector.api.dead_letter_pages import NO_STORE
from collector.api.documents import Page
from collector.api.web import letter_actions, letters, login, search, session
from collector.api.web.kept import AnswerCache, TooSlow
from collector.api.web.login import HOME, TREE
from collector.api.web.overview import Overview, overview
from collector.api.web.rendering import POLICY, render, static_files
from collector.api.web.shown import PageRequest, View
from collector.api.web.sources import Sources
from collector.api.web.tenants import TenantsPage, tenants_page
from collector.broker.contract import BrokerError
from collector.dead_letters.queries import DeadLetterReports
from collector.dead_letters.replay import DeadLetterReplayer
from collector.query.recent import RecentTelemetry
from collector.receivers.refusals import Explain, Refusal
from collector.store.contract import StoreError
from collector.telemetry.tenant_usage import Usage, usage_by_tenant
from collector.tenancy.access import Access
from collector.tenancy.identity import Caller

WEB_PATHS: Final = frozenset({HOME, TREE})

_STATIC: Final = "/ui/static/"
_LOGIN_FORM_BYTES_MAX: Final = 4096
# The largest form that is read although its key is no longer in force, so that its text can be shown again.
_REFUSED_FORM_BYTES_MAX: Final = 256 * 1024
# How long an answer of the store is kept, and how long a page waits for one.
_KEEP_S: Final = 5.0
_WAIT_S: Final = 10.0
_KEPT_MAX: Final = 64
_HTML: Final = "text/html; charset=utf-8"

log = structlog.get_logger(__name__)


class WebUi:
    """The ASGI application of all web pages."""

    def __init__(self, sources: Sources, access: Access, explain: Explain, clock: Callable[[], float] = time.monotonic) -> None:
        self._sources: Final = sources
        self._access: Final = access
        self._explain: Final = explain
        self._files: Final = static_files()
        self._kept: Final = AnswerCache(clock, keep_s=_KEEP_S, wait_s=_WAIT_S, answers_max=_KEPT_MAX)
        self._recent: Final = None if sources.letters is None else RecentTelemetry(sources.letters.reader)
        self._views: Final[Mapping[str, Callable[[PageRequest], Awaitable[View]]]] = {
            HOME: self._overview,
            "/ui/login": login.form_shown,
            "/ui/dead-letters": self._letters,
            "/ui/logs": self._logs,
            "/ui/traces": self._traces,
            "/ui/tenants": self._tenants,
            "/ui/settings": self._settings,
        }
        self._actions: Final[Mapping[str, Callable[[PageRequest], Awaitable[View]]]] = {
            "/ui/logout": login.logged_out,
            "/ui/dead-letters": self._change_letters,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        if path.startswith(_STATIC):
            page = self._files.find(path.removeprefix(_STATIC))
            if page is not None and scope["method"] == "GET":
                await _static(page, scope, receive, send)
                return
        headers = session.headers_of(scope["headers"])
        request = PageRequest(
            path=path,
            base=scope.get("root_path", ""),
            query=dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, errors="replace")),
            key=session.key_in(headers),
            is_secure=scope["scheme"] == "https" or session.is_over_tls(headers),
            # The answer to a form is a whole page, not a fragment.
            is_fragment="hx-request" in headers and scope["method"] == "GET",
        )
        try:
            view = await self._answered(scope["method"], request, headers, receive)
        except session.ClientDisconnected:
            return
        except Exception as error:  # noqa: BLE001  # every error becomes a page
            view = self._refusal(request, error)
        await self._send(request, view, send)

    async def _answered(self, method: str, request: PageRequest, headers: session.Headers, receive: Receive) -> View:
        """Return the page. Raises RequestRefused, ValueError, StoreError, BrokerError, TooSlow, ClientDisconnected."""
        if method == "POST" and request.path == "/ui/login":
            session.check_origin(headers)
            form = await self._form(headers, receive, _LOGIN_FORM_BYTES_MAX)
            return login.logged_in(request, form, self._access, self._explain)
        if (
            method == "POST"
            and request.path == "/ui/logout"
            and (request.key is None or self._access.find(request.key) is None)
        ):
            # A browser whose key was revoked can still log out.
            session.check_origin(headers)
            return await login.logged_out(request)
        if method == "POST":
            action = self._actions.get(request.path) or (self._change_letter if letters.id_in(request.path) else None)
            if action is None:
                raise RequestRefused(METHOD_NOT_ALLOWED, f"POST is not allowed for {request.path}: use GET")
            return await self._changed(action, request, headers, receive)
        if request.key is not None and not (method == "GET" and request.path == "/ui/login"):
            request = request._replace(caller=self._access.reader(request.key))
        if method != "GET":
            raise RequestRefused(METHOD_NOT_ALLOWED, f"{method} is not allowed for {request.path}: use GET or POST")
        view = self._views.get(request.path)
        if view is None and letters.id_in(request.path):
            view = self._letter
        if view is None and search.trace_in(request.path):
            view = self._trace
        if view is None:
            raise RequestRefused(NOT_FOUND, f"there is no page {request.path[:100]}")
        if request.caller is None and request.path not in (HOME, "/ui/login"):
            raise _no_key()
        return await view(request)

    async def _changed(
        self, action: Callable[[PageRequest], Awaitable[View]], request: PageRequest, headers: session.Headers, receive: Receive
    ) -> View:
        """Do the action of a form, and return the next page. If that fails, for any reason, the page has the text that was
        typed.

        Raises ClientDisconnected, and RequestRefused if the form itself can't be read."""
        refused: RequestRefused | None = None
        try:
            request = request._replace(caller=self._known_reader(request.key))
        except RequestRefused as error:
            refused = error
        bytes_max = self._sources.form_bytes_max if refused is None else _REFUSED_FORM_BYTES_MAX
        try:
            form = await self._form(headers, receive, bytes_max)
        except RequestRefused as error:
            raise (refused or error) from None
        request = request._replace(form=form)
        try:
            if refused is not None:
                raise refused
            session.check_form(headers, form, request.key or b"")
            request = request._replace(is_from_us=True)
            return await action(request)
        except Exception as error:  # noqa: BLE001  # every error becomes a page
            return self._refusal(request, error)

    def _known_reader(self, key: bytes | None) -> Caller:
        """Return the caller of a key that may read. Raises RequestRefused."""
        if key is None:
            raise _no_key()
        return self._access.reader(key)

    async def _form(self, headers: session.Headers, receive: Receive, bytes_max: int) -> session.Form:
        return await session.read_form(headers, receive, bytes_max=bytes_max, timeout_s=self._sources.body_timeout_s)

    # Pages.

    async def _overview(self, request: PageRequest) -> View:
        sources = self._sources
        recent, reports = self._recent, sources.letters
        snapshot = (await self._kept.get("metrics", sources.snapshot)).value
        found: Overview = overview(snapshot, sources.health(), sources.uptime_s(), time.time())
        context: dict[str, Any] = {
            "overview": found,
            "inflow": None,
            "stats": None,
            "problem": "",
            "behind": None,
            "age_s": 0.0,
            "whose": None,
            "findings": None,
        }
        if request.caller is None:
            return View("overview.html", context)
        if recent is None or reports is None:
            return View("overview.html", {**context, "problem": NO_STORE})
        whose = context["whose"] = request.tenant
        try:
            inflow = await self._kept.get(("inflow", whose), lambda: recent.inflow(whose))
            context["inflow"], context["age_s"] = inflow.value, inflow.age_s
            context["chart"] = search.chart(inflow.value, time.time())
            context["stats"] = (await self._kept.get(("letters", whose), lambda: reports.stats_now(whose))).value
            if found.lags is None and request.caller.scope.is_admin:
                # Another process runs the audits. It writes its findings to the store.
                context["findings"] = (await self._kept.get("findings", recent.audit_findings)).value
            context["behind"] = (await self._kept.get("behind", reports.reader.messages_behind_now)).value
        except (StoreError, BrokerError, TooSlow) as error:
            context["problem"] = f"the store can't be asked: {error}"
        return View("overview.html", context)

    async def _letters(self, request: PageRequest) -> View:
        reports = self._reports()
        # Not kept, so that the page shows the change of a form at once.
        key = ("letters", request.tenant, request.query_text)
        return (await self._kept.get(key, lambda: letters.listed(request, reports), is_kept=False)).value

    async def _letter(self, request: PageRequest) -> View:
        reports, bytes_max = self._reports(), self._sources.form_bytes_max
        key = ("letter", request.path, request.tenant_allowed, request.query_text)
        return (await self._kept.get(key, lambda: letters.shown_entry(request, reports, bytes_max), is_kept=False)).value

    async def _change_letters(self, request: PageRequest) -> View:
        return await letter_actions.change_listed(request, self._reports(), self._replayer(request))

    async def _change_letter(self, request: PageRequest) -> View:
        return await letters.change_entry(request, self._reports(), self._replayer(request), self._sources.form_bytes_max)

    async def _logs(self, request: PageRequest) -> View:
        recent = self._known_recent()
        selection = search.search_of(request)
        found = await self._kept.get(("logs", selection), lambda: recent.logs(selection))
        return View("logs.html", search.listed(selection, found))

    async def _traces(self, request: PageRequest) -> View:
        recent = self._known_recent()
        selection = search.search_of(request)
        found = await self._kept.get(("spans", selection), lambda: recent.spans(selection))
        return View("traces.html", search.listed(selection, found))

    async def _trace(self, request: PageRequest) -> View:
        recent = self._known_recent()
        trace_id, whose = search.trace_in(request.path), request.tenant
        found = await self._kept.get(("trace", trace_id, whose), lambda: recent.trace(trace_id, whose))
        if not found.value:
            raise RequestRefused(NOT_FOUND, f"no span of trace {trace_id} is stored")
        return View("trace.html", search.waterfall(trace_id, found.value))

    async def _tenants(self, request: PageRequest) -> View:
        found = await self._kept.get("usage", self._usage)
        page: TenantsPage = tenants_page(request, *found.value)
        return View("tenants.html", {"page": page, "age_s": found.age_s})

    async def _settings(self, request: PageRequest) -> View:
        if request.caller is None or not request.caller.scope.is_admin:
            raise RequestRefused(INSUFFICIENT_SCOPE, "the settings in force are shown to a key of scope admin")
        only_changed = request.query.get("changed") == "1"
        shown = [setting for setting in self._sources.settings() if not (only_changed and setting.is_default)]
        return View("settings.html", {"settings": shown, "only_changed": only_changed})

    async def _usage(self) -> tuple[Mapping[str, Usage], Mapping[str, str]]:
        """Return the usage and the plans, by tenant."""
        snapshot = await self._sources.gather()
        # In a thread, since thousands of tenants take a while.
        return await asyncio.to_thread(lambda: (usage_by_tenant(snapshot), self._sources.plans()))

    def _reports(self) -> DeadLetterReports:
        """Return the reports of dead letters. Raises RequestRefused if there is no store."""
        if self._sources.letters is None:
            raise RequestRefused(STORE_UNAVAILABLE, NO_STORE)
        return self._sources.letters

    def _known_recent(self) -> RecentTelemetry:
        """Return the reader of recent telemetry. Raises RequestRefused if there is no store."""
        if self._recent is None:
            raise RequestRefused(STORE_UNAVAILABLE, NO_STORE)
        return self._recent

    def _replayer(self, request: PageRequest) -> DeadLetterReplayer:
        """Return the replayer. Raises RequestRefused if the key may not change dead letters, or there is no store."""
        if request.caller is None or not request.may_change:
            scope = "none" if request.caller is None else request.caller.scope
            raise RequestRefused(
                INSUFFICIENT_SCOPE, f"the key has scope {scope}, and dead letters are changed with scope write or admin"
            )
        if self._sources.replayer is None:
            raise RequestRefused(STORE_UNAVAILABLE, NO_STORE)
        return self._sources.replayer

    # Answering.

    def _refusal(self, request: PageRequest, error: Exception) -> View:
        """Return the page for an error: the login form if a key is missing, or else the error with its message."""
        if isinstance(error, ValueError):
            error = RequestRefused(INVALID_PARAMETER, str(error))
        elif isinstance(error, (StoreError, TooSlow)):
            error = RequestRefused(STORE_UNAVAILABLE, f"the store can't be asked: {error}")
        elif not isinstance(error, (RequestRefused, BrokerError)):
            log.error("a web page failed", path=request.path, exc_info=error)
            error = RequestRefused(INTERNAL, "a defect of the collector; its log has the details")
        context: dict[str, Any]
        refusal: Refusal = self._explain(error)
        headers = {} if refusal.retry_after_s is None else {"retry-after": str(int(refusal.retry_after_s) or 1)}
        if refusal.codes.http == 401:
            # A page that refreshes itself is loaded anew, so that it shows at once that its key is no longer in force.
            headers |= {"www-authenticate": 'ApiKey realm="infrasage"'} | (
                {"hx-refresh": "true"} if request.is_fragment else {}
            )
            context = {
                "next": quote(request.path) + request.query_text,
                "error": refusal.message if request.key is not None else "",
            }
            return View("login.html", {**context, **letters.given_back(request, may_retry=False)}, 401, headers)
        context = {
            "name": refusal.name,
            "message": refusal.message,
            "status": refusal.codes.http,
            # A form that failed may be sent once more, but not one that another site made.
            **letters.given_back(request, may_retry=request.is_from_us and refusal.codes.http not in (403, 404)),
        }
        return View("error.html", context, refusal.codes.http, headers)

    async def _send(self, request: PageRequest, view: View, send: Send) -> None:
        """Render a page, and send it."""
        body = b""
        if view.template:
            # Look up the caller also for an error, which may have come before that.
            caller = None if request.key is None else self._access.find(request.key)
            if caller is not None and caller.scope.reads:
                request = request._replace(caller=caller)
            context = {
                "base": request.base,
                "here": request.base + request.path,
                "here_with_query": request.base + quote(request.path) + request.query_text,
                "path": request.path,
                "caller": request.caller,
                "may_change": request.may_change,
                "token": "" if request.key is None or request.caller is None else session.token_of(request.key),
                "version": self._sources.version,
                **view.context,
            }
            body = await asyncio.to_thread(render, view.template, context)
        headers = {
            "content-type": _HTML,
            "content-length": str(len(body)),
            "cache-control": "no-store",
            # Not no-referrer, with which browsers send forms with "Origin: null".
            "referrer-policy": "same-origin",
            "content-security-policy": POLICY,
            "x-content-type-options": "nosniff",
            "x-frame-options": "DENY",
            "cross-origin-opener-policy": "same-origin",
            **view.headers,
        }
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": view.status, "headers": raw})
        await send({"type": "http.response.body", "body": body})


async def _static(page: Page, scope: Scope, receive: Receive, send: Send) -> None:
    """Send a static file, with a header that forbids browsers to guess its type."""

    async def sent(message: Any) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message["headers"], (b"x-content-type-options", b"nosniff")]
        await send(message)

    await page(scope, receive, sent)


def _no_key() -> RequestRefused:
    return RequestRefused(MISSING_API_KEY, "this page needs a key of scope readonly or higher")
