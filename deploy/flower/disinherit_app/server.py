"""The coordinator."""

from disinherit.server.server_app import app

__all__ = ["app"]
