"""An owner: its node's configuration names the function that opens its models."""

from disinherit.client.client_app import app

__all__ = ["app"]
