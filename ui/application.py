"""The dashboard over a coordinator: sign-in, screens, actions, and changes as they happen."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlencode

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from disinherit.common.errors import (
    DisinheritError,
    InputError,
    NotAllowedError,
    NotFoundError,
    NotKnownError,
    NotNowError,
    StoreError,
)
from disinherit.ui.cookies import Cookies
from disinherit.ui.forms import read_form
from disinherit.ui.protection import Protection
from disinherit.ui.rendering import STATIC, html, render
from disinherit.ui.screens import actions, downloads, new_request
from disinherit.ui.screens.screen import Page, Screen
from disinherit.ui.screens.screens import NEW_REQUEST, SCREENS, home_of
from disinherit.ui.sessions import Sessions, VisitorSession, introduced, same
from disinherit.ui.visitors import Visitor

_LOG = logging.getLogger(__name__)

BEAT_SECONDS = 15.0
"""Longest silence of a live page, so that a broken connection is noticed."""

RETRY_SECONDS = 1.0
"""Pause before a page that could not be drawn is tried again."""

SETTLE_SECONDS = 0.2
"""Pause after a change before a page is drawn anew: many come at once."""

_STATUS: Sequence[tuple[type[DisinheritError], int]] = (
    (NotFoundError, 404),
    (NotAllowedError, 403),
    (NotKnownError, 401),
    (NotNowError, 409),
    (InputError, 400),
    (StoreError, 503),
    (DisinheritError, 502),
)

Endpoint = Callable[[Request], Awaitable[Response]]
Signed = Callable[[Request, VisitorSession], Awaitable[Response]]


class Dashboard:
    """Pages over a coordinator.

    Args:
        visitor: makes the visitor of a token.
        address: of the coordinator, as people know it.
        cookies: sets and reads the session's cookie.
    """

    def __init__(self, visitor: Callable[[str], Visitor], address: str, cookies: Cookies) -> None:
        self._visitor = visitor
        self._address = address
        self._cookies = cookies
        self.sessions = Sessions()

    def application(self, hosts: Sequence[str]) -> Starlette:
        """Return the web application.

        Args:
            hosts: host names under which it may be asked.
        """
        routes: list[Route | Mount] = [
            Route("/", self._signed(self._home)),
            Route("/sign-in", self._sign_in_page),
            Route("/sign-in", self._sign_in, methods=["POST"]),
            Route("/sign-out", self._signed(self._sign_out), methods=["POST"]),
            Route("/campaign", self._signed(self._act), methods=["POST"]),
            Route("/request/new", self._signed(self._new_request), methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC, follow_symlink=True)),
        ]
        for path, make in downloads.DOWNLOADS.items():
            routes.append(Route(path, self._signed(_download(make))))
        for screen in SCREENS:
            routes.append(Route(screen.path, self._signed(self._shown(screen))))
            routes.append(Route(f"{screen.path}.json", self._signed(_json(screen))))
            if screen.live:
                routes.append(Route(f"{screen.path}/live", self._signed(self._live(screen))))
        application = Starlette(
            routes=routes,
            middleware=[Middleware(Protection, hosts=hosts)],
            exception_handlers={404: self._no_page},
        )
        application.state.close = self.sessions.close
        return application

    def _signed(self, endpoint: Signed) -> Endpoint:
        """Return an endpoint for visitors who have signed in; the others are asked to."""

        async def answer(request: Request) -> Response:
            session = self.sessions.find(self._cookies.session(request))
            if session is None:
                return self._to_sign_in(request)
            try:
                return await endpoint(request, session)
            except DisinheritError as error:
                return self._failed(request, session, error)

        return answer

    def _to_sign_in(self, request: Request) -> Response:
        if not _wants_page(request):
            return JSONResponse({"error": "Expected a visitor who has signed in."}, 401)
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        follow = "" if request.method != "GET" or wanted == "/" else f"?next={quote(wanted)}"
        return RedirectResponse(f"/sign-in{follow}", 303)

    def _failed(
        self, request: Request, session: VisitorSession, error: DisinheritError
    ) -> Response:
        status = _status(error)
        if status == 401:
            self.sessions.end(session)
        if not _wants_page(request):
            return JSONResponse({"error": str(error)}, status)
        if status == 401:
            return self._sign_in_form(request, str(error), 401)
        return html(
            render("error", {"status": status, "text": str(error), **self._frame(session)}), status
        )

    async def _no_page(self, request: Request, _: Exception) -> Response:
        session = self.sessions.find(self._cookies.session(request))
        error = NotFoundError(f"Expected the address of a page, but got {request.url.path!r}.")
        if session is None:
            return JSONResponse({"error": str(error)}, 404)
        return self._failed(request, session, error)

    async def _home(self, request: Request, session: VisitorSession) -> Response:
        return RedirectResponse(home_of(session.role), 303)

    async def _sign_in_page(self, request: Request) -> Response:
        if self.sessions.find(self._cookies.session(request)) is not None:
            return RedirectResponse("/", 303)
        return self._sign_in_form(request, "", 200)

    def _sign_in_form(self, request: Request, problem: str, status: int) -> Response:
        guest = self._cookies.guest(request)
        values = {
            "address": self._address,
            "form_key": self.sessions.guest_key(guest),
            "next": _local(request.query_params.get("next", "")),
            "problem": problem,
        }
        response = html(render("sign_in", values), status)
        self._cookies.set_guest(response, guest)
        return response

    async def _sign_in(self, request: Request) -> Response:
        form = await read_form(request)
        expected = self.sessions.guest_key(self._cookies.guest(request))
        if not same(form.get("form_key", ""), expected):
            return self._sign_in_form(request, "The form was too old. Sign in again.", 403)
        try:
            visitor = self._visitor(form.get("token", "").strip())
            session = await run_in_threadpool(introduced, visitor)
        except DisinheritError as error:
            return self._sign_in_form(request, str(error), _status(error))
        response = RedirectResponse(_local(form.get("next", "")) or "/", 303)
        self._cookies.set_session(response, self.sessions.open(session))
        return response

    async def _sign_out(self, request: Request, session: VisitorSession) -> Response:
        _check_key(session, await read_form(request))
        self.sessions.end(session)
        response = RedirectResponse("/sign-in", 303)
        self._cookies.clear(response)
        return response

    async def _act(self, request: Request, session: VisitorSession) -> Response:
        form = await read_form(request)
        _check_key(session, form)
        session.notice = await run_in_threadpool(actions.act, session, form)
        return RedirectResponse(f"/campaign?{urlencode({'id': form['id']})}", 303)

    async def _new_request(self, request: Request, session: VisitorSession) -> Response:
        form = await read_form(request)
        _check_key(session, form)
        values, submitted = await run_in_threadpool(new_request.answer, session, form)
        if submitted:
            session.notice = "Submitted."
            return RedirectResponse(f"/campaign?{urlencode({'id': submitted})}", 303)
        return html(self._page(NEW_REQUEST, Page(session, request.query_params), values))

    def _shown(self, screen: Screen) -> Signed:
        async def answer(request: Request, session: VisitorSession) -> Response:
            page = Page(session, request.query_params)
            values = await _loaded(screen, page)
            return html(self._page(screen, page, values))

        return answer

    def _page(self, screen: Screen, page: Page, values: Mapping[str, Any]) -> str:
        query = f"?{page.query}" if page.query else ""
        frame = {
            "screen": screen,
            "json_path": f"{screen.path}.json{query}",
            "live_path": f"{screen.path}/live{query}" if screen.live else "",
            **self._frame(page.session),
            "notice": page.session.notice,
        }
        page.session.notice = ""
        return render("page", {"command": screen.command(page), **values, **frame})

    def _frame(self, session: VisitorSession) -> Mapping[str, Any]:
        """Return what every page shows around its content."""
        return {
            "session": session,
            "address": self._address,
            "menu": [one for one in SCREENS if one.menu and session.role in one.roles],
        }

    def _live(self, screen: Screen) -> Signed:
        """Return an endpoint that sends a screen's content anew after each change."""

        async def answer(request: Request, session: VisitorSession) -> Response:
            page = Page(session, request.query_params)
            events = self._events(screen, page)
            return StreamingResponse(events, media_type="text/event-stream")

        return answer

    async def _events(self, screen: Screen, page: Page) -> AsyncIterator[str]:
        async with page.session.watch.listening() as listener:
            stale = False
            while True:
                change = await listener.next(RETRY_SECONDS if stale else BEAT_SECONDS)
                if change == "closing":
                    return
                if change == "ended" or not self.sessions.alive(page.session):
                    yield _event("ended")
                    return
                if change is None and not stale:
                    yield ": still here\n\n"
                    continue
                part = None
                if change != "lost":
                    await asyncio.sleep(SETTLE_SECONDS)
                    part = await self._drawn(screen, page)
                stale = part is None  # what could not be drawn is tried again soon
                yield _event("lost") if part is None else _event("", part)

    async def _drawn(self, screen: Screen, page: Page) -> str | None:
        """Return a screen's content as it is now; `None` if the coordinator does not say."""
        try:
            values = await _loaded(screen, page)
        except DisinheritError as error:
            _LOG.info("a live page could not be drawn: %s", error)
            return None
        return render(screen.part, {**values, **self._frame(page.session)})


def _download(make: Callable[[Page], downloads.Download]) -> Signed:
    async def answer(request: Request, session: VisitorSession) -> Response:
        file = await run_in_threadpool(make, Page(session, request.query_params))
        disposition = f'attachment; filename="{file.name}"'
        return Response(file.data, 200, {"content-disposition": disposition}, file.media_type)

    return answer


def _json(screen: Screen) -> Signed:
    async def answer(request: Request, session: VisitorSession) -> Response:
        return JSONResponse(await _loaded(screen, Page(session, request.query_params)))

    return answer


async def _loaded(screen: Screen, page: Page) -> Mapping[str, Any]:
    if page.session.role not in screen.roles:
        raise NotAllowedError(
            f"Expected a token for {' or '.join(screen.roles)} to see {screen.title!r}, but yours "
            f"is for {page.session.role}."
        )
    return await run_in_threadpool(screen.load, page)


def _status(error: DisinheritError) -> int:
    return next(code for kind, code in _STATUS if isinstance(error, kind))


def _check_key(session: VisitorSession, form: Mapping[str, str]) -> None:
    if not same(form.get("form_key", ""), session.form_key):
        raise NotAllowedError(
            "Expected a form of this session, but got another one. Load the page again. Nothing "
            "was changed."
        )


def _wants_page(request: Request) -> bool:
    """Return whether a person asks, who is to see a page."""
    return not request.url.path.endswith((".json", "/live"))


def _local(path: str) -> str:
    """Return a path of this server; `""` for any other address."""
    plain = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if plain else ""


def _event(name: str, data: str = "") -> str:
    """Return an event of a stream; one without a name replaces the content of a page."""
    lines = [f"event: {name}"] if name else []
    lines += [f"data: {line}" for line in data.splitlines() or [""]]
    return "\n".join(lines) + "\n\n"
