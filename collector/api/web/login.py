"""Log in with a key, and log out."""

from typing import Final
from urllib.parse import urlsplit

from adapters.errors import RequestRefused
from collector.api.web import session
from collector.api.web.letters import NOTHING_EDITED
from collector.api.web.shown import PageRequest, View
from collector.receivers.refusals import Explain
from collector.tenancy.access import Access

HOME: Final = "/"
TREE: Final = "/ui/"


async def form_shown(request: PageRequest) -> View:
    """Return the login form. It leads to the page that `next` in the query names, if that is a page of ours."""
    return View("login.html", {"next": _own_path(request.query.get("next", HOME)), **NOTHING_EDITED})


def logged_in(request: PageRequest, form: session.Form, access: Access, explain: Explain) -> View:
    """Return the answer to the login form: a redirect with the cookie, or the form with the reason why the key is refused."""
    key = "".join(form.get("key", ())).strip()
    target = _own_path("".join(form.get("next", ())))
    try:
        access.reader(key.encode(errors="replace") or None)
    except RequestRefused as refused:
        refusal = explain(refused)
        return View("login.html", {"next": target, "error": refusal.message, **NOTHING_EDITED}, status=refusal.codes.http)
    cookie = session.cookie_with(key, path=request.base or "/", is_secure=request.is_secure)
    return View.redirect(request.base + target, {"set-cookie": cookie})


async def logged_out(request: PageRequest) -> View:
    """Return the answer that removes the cookie."""
    cookie = session.cookie_with("", path=request.base or "/", is_secure=request.is_secure)
    return View.redirect(request.base + HOME, {"set-cookie": cookie})


def _own_path(target: str) -> str:
    """Return `target` if it is a page of ours, else HOME. A link to the login form must not lead to another site."""
    parts = urlsplit(target)
    is_ours = not parts.scheme and not parts.netloc and (parts.path == HOME or parts.path.startswith(TREE))
    is_plain = target.isascii() and target.isprintable() and "\\" not in target and " " not in target
    return target if is_ours and is_plain and not target.startswith("//") else HOME
