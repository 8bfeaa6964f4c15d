"""The dashboard over folders of runs: read only, for this machine, without sign-in."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from disinherit.common.errors import DisinheritError, InputError, NotFoundError
from disinherit.ui.protection import REPORT_POLICY, Protection
from disinherit.ui.rendering import STATIC, html, render
from disinherit.ui.runs import Runs

Load = Callable[[Runs, Request], Mapping[str, Any]]


def check_folder(folder: Path) -> None:
    """Check that there is a folder.

    Raises:
        InputError: if there is none.
    """
    if not folder.is_dir():
        raise InputError(
            f"Expected a folder of runs, such as runs/, but {str(folder)!r} is none. Make a run: "
            "disinherit demo --out runs/demo"
        )


def local_application(folder: Path, hosts: Sequence[str]) -> Starlette:
    """Return the web application over a folder of runs.

    Args:
        folder: the folder; each of its folders may be a run or a benchmark.
        hosts: host names under which it may be asked.
    """
    runs = Runs(folder)
    routes: list[Route | Mount] = [
        Route("/", lambda request: RedirectResponse("/runs", 303)),
        Route("/run/report", _report(runs)),
        Mount("/static", StaticFiles(directory=STATIC, follow_symlink=True)),
    ]
    for path, part, load, command in _SCREENS:
        routes.append(Route(path, _page(runs, part, load, command)))
        routes.append(Route(f"{path}.json", _json(runs, load)))
    application = Starlette(
        routes=routes,
        middleware=[Middleware(Protection, hosts=hosts)],
        exception_handlers={404: _no_page(runs)},
    )
    application.state.close = lambda: None  # no page stays open
    return application


Endpoint = Callable[[Request], Awaitable[Response]]


def _page(
    runs: Runs, part: str, load: Load, command: Callable[[Request], Sequence[str]]
) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            values = await run_in_threadpool(load, runs, request)
        except DisinheritError as error:
            return _failed(runs, error)
        query = f"?{request.url.query}" if request.url.query else ""
        frame = {
            "part": part,
            "folder": str(runs.folder),
            "command": command(request),
            "json_path": f"{request.url.path}.json{query}",
        }
        return html(render("local_page", {**values, **frame}))

    return answer


def _json(runs: Runs, load: Load) -> Endpoint:
    async def answer(request: Request) -> Response:
        try:
            return JSONResponse(await run_in_threadpool(load, runs, request))
        except DisinheritError as error:
            return JSONResponse({"error": str(error)}, _status(error))

    return answer


def _report(runs: Runs) -> Endpoint:
    """Return an endpoint for the stored page of a run, which has no script and may have none."""

    async def answer(request: Request) -> Response:
        try:
            text = await run_in_threadpool(runs.page, request.query_params.get("id", ""))
        except DisinheritError as error:
            return _failed(runs, error)
        headers = {"content-security-policy": REPORT_POLICY, "x-frame-options": "SAMEORIGIN"}
        response = html(text)
        response.headers.update(headers)
        return response

    return answer


def _no_page(runs: Runs) -> Callable[[Request, Exception], Awaitable[Response]]:
    async def answer(request: Request, _: Exception) -> Response:
        return _failed(
            runs, NotFoundError(f"Expected the address of a page, but got {request.url.path!r}.")
        )

    return answer


def _failed(runs: Runs, error: DisinheritError) -> Response:
    values = {"part": "local_error", "folder": str(runs.folder), "text": str(error)}
    frame = {"command": ("ui", str(runs.folder)), "json_path": "/runs.json"}
    return html(render("local_page", {**values, **frame}), _status(error))


def _status(error: DisinheritError) -> int:
    return 404 if isinstance(error, NotFoundError) else 400


def _all(runs: Runs, request: Request) -> Mapping[str, Any]:
    return runs.overview()


def _one(runs: Runs, request: Request) -> Mapping[str, Any]:
    return runs.one(request.query_params.get("id", ""))


def _two(runs: Runs, request: Request) -> Mapping[str, Any]:
    chosen = request.query_params.getlist("id")
    if len(chosen) != 2:
        raise InputError(f"Expected two runs to compare, but got {len(chosen)}. Mark two of them.")
    return runs.compared(chosen[0], chosen[1])


def _report_command(request: Request) -> Sequence[str]:
    return ("report", request.query_params.get("id", "RUN"))


_SCREENS: Sequence[tuple[str, str, Load, Callable[[Request], Sequence[str]]]] = (
    ("/runs", "runs", _all, lambda request: ("report", "RUN", "--format", "json")),
    ("/run", "run", _one, _report_command),
    ("/runs/compare", "runs_compared", _two, _report_command),
)
