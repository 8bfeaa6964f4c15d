"""Cookies: a random secret each, which scripts cannot read and other sites cannot send."""

import secrets

from starlette.requests import Request
from starlette.responses import Response


class Cookies:
    """Cookies of one dashboard.

    Args:
        port: of the dashboard. Browsers share cookies between all ports of a host.
        secure: whether they are for TLS only.
    """

    def __init__(self, port: int, secure: bool) -> None:
        self._session = f"disinherit-{port}"
        self._guest = f"disinherit-{port}-guest"
        self._secure = secure

    def session(self, request: Request) -> str:
        """Return the secret of a session; `""` without one."""
        return request.cookies.get(self._session, "")

    def set_session(self, response: Response, secret: str) -> None:
        """Give the secret of a session to a browser, until it closes."""
        self._set(response, self._session, secret)
        response.delete_cookie(self._guest)

    def clear(self, response: Response) -> None:
        """Have a browser forget the session."""
        response.delete_cookie(self._session)

    def guest(self, request: Request) -> str:
        """Return the secret of a visitor who has not signed in; a new one if there is none."""
        return request.cookies.get(self._guest) or secrets.token_urlsafe(32)

    def set_guest(self, response: Response, secret: str) -> None:
        """Give that secret to a browser."""
        self._set(response, self._guest, secret)

    def _set(self, response: Response, name: str, secret: str) -> None:
        response.set_cookie(name, secret, httponly=True, samesite="strict", secure=self._secure)
