"""The coordinator."""

from disinherit.server.flower.server_app import app

__all__ = ["app"]
