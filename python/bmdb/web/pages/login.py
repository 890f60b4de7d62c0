"""Logging in with the token, and out."""

from __future__ import annotations

import math

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from bmdb import logs
from bmdb.web.access import Misuse, name_from
from bmdb.web.security import LOGIN, LOGOUT, is_page
from bmdb.web.site import site_of

__all__ = ["routes"]

_logger = logs.logger("bmdb.web")


async def show(request: Request) -> Response:
    """The form, in a visit of its own so that it can be told from one that others made up."""
    guard = request.state.guard
    if not guard.access.by_token:
        raise Misuse(404, "There is nothing to log in with here.")
    after = _after(request, request.query_params.get("next", ""))
    if request.state.person is not None:
        return RedirectResponse(after, 303)
    return _form(request, after=after)


async def log_in(request: Request) -> Response:
    """Compares the token and begins a visit in the name that the person says."""
    guard = request.state.guard
    form = request.state.form
    after = _after(request, form.get("next", ""))
    wait = guard.failures.wait(request.scope)
    if wait > 0:
        seconds = str(math.ceil(wait))
        text = f"Too many wrong tokens: try again in {seconds} s."
        return _form(request, 429, after=after, problem=text, headers={"Retry-After": seconds})
    if not guard.access.is_token(form.get("token", "")):
        guard.failures.note(request.scope)
        _logger.warning("a wrong token from %s", request.client.host if request.client else "the Unix socket")
        return _form(request, 403, after=after, problem="That is not the token.")
    try:
        person = name_from(form.get("person", ""))
    except ValueError as error:
        return _form(request, 422, after=after, problem=f"Say who you are: {error}.")
    if request.state.visit is not None:
        guard.visits.end(request.state.visit)
    _logger.info("%r logged in", person)
    answer = RedirectResponse(after, 303)
    answer.headers.append("set-cookie", guard.visits.cookie(request.scope, guard.visits.begin(person)))
    return answer


async def log_out(request: Request) -> Response:
    """Ends the visit: its cookie is good for nothing any more."""
    guard = request.state.guard
    if request.state.visit is not None:
        guard.visits.end(request.state.visit)
    answer = RedirectResponse(request.scope.get("root_path", "") + LOGIN, 303)
    answer.headers.append("set-cookie", guard.visits.no_cookie(request.scope))
    return answer


def _form(
    request: Request, status: int = 200, *, after: str, problem: str = "", headers: dict[str, str] | None = None
) -> Response:
    guard = request.state.guard
    visit = request.state.visit or guard.visits.begin()
    answer = site_of(request).page(
        request,
        "login.html",
        status=status,
        headers=headers,
        after=after.removeprefix(request.scope.get("root_path", "")),
        problem=problem,
        csrf=guard.visits.form_token(visit.binding),
    )
    if request.state.visit is None:
        answer.headers.append("set-cookie", guard.visits.cookie(request.scope, visit))
    return answer


def _after(request: Request, given: str) -> str:
    """Where to go after the login: a page of ours, whatever the address says."""
    path = given if is_page(given) else "/"
    root: str = request.scope.get("root_path", "")
    return root + path


routes = [
    Route(LOGIN, show, methods=["GET"], name="login"),
    Route(LOGIN, log_in, methods=["POST"], name="log_in"),
    Route(LOGOUT, log_out, methods=["POST"], name="log_out"),
]
