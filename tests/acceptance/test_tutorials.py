"""The tutorials, run as a reader does: what a page says that is printed, is."""

import re
from pathlib import Path

from disinherit.deploy.orphans import end_orphans
from tests.support.head_census import AT_START, shim_torchvision
from tests.support.huggingface import require
from tests.support.pages import pages, texts
from tests.support.ports import free_ports
from tests.support.tutorial import pattern, run, script_of


def test_the_first_forgetting(tmp_path: Path) -> None:
    run("docs/tutorial-first.md", tmp_path)


def ports_of_a_coordinator() -> dict[str, str]:
    """Those that pages show -> free ones."""
    shown = ("50051", "50052", "50053")
    return dict(zip(shown, map(str, free_ports(3)), strict=True))


def test_devices_that_are_off_and_come_back(tmp_path: Path) -> None:
    run("docs/tutorial-agent.md", tmp_path, ports_of_a_coordinator())


def test_a_device_from_a_letter_to_an_attestation(tmp_path: Path) -> None:
    run("docs/tutorial-erasure.md", tmp_path, ports_of_a_coordinator())
    assert "[" in (tmp_path / "answer.txt").read_text()
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


def test_a_federation_of_two(tmp_path: Path) -> None:
    home, here = tmp_path / "home", tmp_path / "wards"
    home.mkdir()
    here.mkdir()
    ports = map(str, free_ports(2))
    variables = {
        "FLWR_LOCAL_SUPERLINK_HTTP_API_PORT": next(ports),
        "FLWR_LOCAL_CONTROL_API_PORT": next(ports),
        "HOME": str(home),
        "FLWR_HOME": str(home / ".flwr"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    try:
        run("docs/tutorial-federation.md", here, variables=variables)
    finally:
        end_orphans(home / ".flwr")  # the SuperLink that Flower leaves running
    assert (home / ".disinherit/flower/me.wards/server/final_model.pt").exists()


def test_a_family_of_transformers(tmp_path: Path) -> None:
    require()
    variables = {}
    if shim_torchvision():
        (tmp_path / "shim").mkdir()
        (tmp_path / "shim/sitecustomize.py").write_text(AT_START)
        variables["PYTHONPATH"] = str(tmp_path / "shim")
    run("docs/tutorial-family.md", tmp_path, variables=variables)
    assert (tmp_path / "forgotten/news/README.md").exists()


def test_what_a_page_says_is_compared() -> None:
    assert re.fullmatch(pattern("a 9.5%  of ...\n"), "a 12% of b c\n")
    assert not re.fullmatch(pattern("a 9.5%\n"), "a 12% b\n")


def test_a_coordinator_in_the_background_is_waited_for() -> None:
    """Commands below it would be refused; alike on all pages."""
    serving = re.compile(r"^disinherit serve .* 2> (\S+) &\n(.*)", re.MULTILINE)
    waits = {
        after.partition(" # ")[0].strip() == f'until grep "serving on" {log}; do sleep 1; done'
        for page in pages()
        for text in texts(page, "sh")
        for log, after in serving.findall(text)
    }
    assert waits == {True}


def test_installing_is_no_part_of_the_script() -> None:
    script, printed = script_of("docs/tutorial-first.md")
    assert "pip install" not in script
    assert "python first.py" in script
    assert len(printed) == 2
