"""The reference of metrics, made from those of an empty coordinator."""

import re
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from disinherit.server.service.hosting import Service
from disinherit.server.service.settings import read_settings
from tests import ROOT
from tests.support.reference import one_line, table
from tests.support.service import write_tokens

PAGE = ROOT / "docs" / "metrics.md"
_HEAD = """# Metrics

Figures of a coordinator for Prometheus, at `/metrics` of the address in the table
[`[metrics]`](configuration.md#metrics-in-servetoml) of `serve.toml`. No figure has the name of a
model, an owner, a request or a caller. What is worth an alarm:
[operations](operations.md#watching-it).

This page is made from the code by `make reference`.

"""
_CONFIG = """
database = "coordinator.db"
tokens = "tokens.toml"
listen = "127.0.0.1:0"
[metrics]
listen = "127.0.0.1:0"
"""
_OPEN = {"method": "a call", "code": "a gRPC status", "release": "that of Disinherit"}
"""Labels whose values are not listed, and what these are."""


def page() -> str:
    """The page as it should be."""
    heads = ("metric", "kind", "label: values", "meaning")
    return _HEAD + table(heads, _rows(_scraped()))


def _scraped() -> str:
    """What a coordinator without models, requests and agents shows after one call."""
    with TemporaryDirectory() as folder:
        write_tokens(Path(folder) / "tokens.toml")
        (Path(folder) / "serve.toml").write_text(_CONFIG)
        service = Service(read_settings(Path(folder) / "serve.toml", {}, {}))
        service.start()
        try:
            assert service._metrics is not None
            service._metrics.call_ended("SubmitRequest", "OK", 0.1)
            return service._metrics.page().decode()
        finally:
            service.stop(0)


def _rows(text: str) -> Iterator[tuple[str, str, str, str]]:
    for name, said, kind, figures in re.findall(
        r"^# HELP (\w+) (.+)\n# TYPE \w+ (\w+)\n((?:[^#].*\n)*)", text, re.MULTILINE
    ):
        labels: dict[str, dict[str, None]] = {}
        for label, value in re.findall(r'(\w+)="([^"]*)"', figures):
            if label != "le":
                labels.setdefault(label, {})[value] = None
        listed = "; ".join(
            f"`{label}`: {_OPEN.get(label) or ', '.join(f'`{value}`' for value in values)}"
            for label, values in labels.items()
        )
        yield f"`{name}`", kind, listed, one_line(said)


if __name__ == "__main__":
    PAGE.write_text(page())
