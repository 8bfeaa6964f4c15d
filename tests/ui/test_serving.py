"""The dashboard as a program: it says where it is, and ends when it is told to, with pages open."""

import http.client
import re
import signal
import subprocess
import sys
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.support import campaign
from tests.support.service import secret, serving

PROGRAM = "import sys; from disinherit.cli.main import run; sys.exit(run())"


def ask(
    opened: ExitStack, port: int, method: str, path: str, body: str = "", cookie: str = ""
) -> tuple[str, str]:
    """The cookie and the text that a page begins with; its connection stays open."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    opened.enter_context(closing(connection))
    headers = {"cookie": cookie, "content-type": "application/x-www-form-urlencoded"}
    connection.request(method, path, body, headers)
    answer = opened.enter_context(closing(connection.getresponse()))
    cookies = [value for name, value in answer.getheaders() if name == "set-cookie"]
    return (cookies or [""])[0].partition(";")[0], answer.read1(5000).decode()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_well_while_a_page_is_open(
    number: signal.Signals, built: Path, tmp_path: Path
) -> None:
    campaign.copy(built, tmp_path / "world").store.close()
    with serving(tmp_path / "world") as running, ExitStack() as opened:
        command = [sys.executable, "-c", PROGRAM, "ui", "--server", running.address, "--port", "0"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        opened.callback(process.kill)
        assert process.stderr is not None
        opened.enter_context(process.stderr)
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+) \(plaintext, on this machine only\)", line)
        assert found is not None, line
        process.stderr.readline()  # what it shows
        port = int(found[1])
        guest, page = ask(opened, port, "GET", "/sign-in")
        key = re.search(r'name="form_key" value="(\w+)"', page)
        assert key is not None
        form = f"form_key={key[1]}&token={secret('viewer')}"
        cookie, _ = ask(opened, port, "POST", "/sign-in", form, guest)
        _, live = ask(opened, port, "GET", "/overview/live", cookie=cookie)
        assert live.startswith("data: <h1>Overview")
        process.send_signal(number)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
