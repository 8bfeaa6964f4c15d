"""The page on upkeep, run whole on a deployment and two owners as release 0.1.0 left them.

In the data, anna has model r1, and ben r2, which derives from it.  Request letter-1 has ended.  Ben
was away when letter-2 came, and stays away.
"""

import base64
import json
import os
import tarfile
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from disinherit.client.store.store import ModelStore
from tests import ROOT
from tests.support.ports import free_block
from tests.support.tutorial import run

DATA = ROOT / "tests" / "data" / "fleet_0_1_0.tar.gz"

SYSTEMCTL = f"""#!/bin/bash
# systemctl start|stop|restart UNIT: for what the unit starts, with other paths.
set -eu
[ $1 != daemon-reload ] || exit 0
pid=$2.pid
if [ $1 != start ] && [ -e $pid ]; then
  found=$(cat $pid)
  kill $found
  while [ -e /proc/$found ] && ! grep -q '^State:.Z' /proc/$found/status; do sleep 0.1; done
  rm $pid
fi
if [ $1 != stop ]; then
  : > $2.log
  command=$(sed -n 's#^ExecStart=/opt/disinherit/bin/##p' {ROOT}/deploy/systemd/$2.service)
  command=${{command//\\/var\\/lib\\/disinherit/fleet}}
  $(echo "$command" | sed 's#/etc/disinherit/agent.toml#owners/anna.toml#') > /dev/null 2>> $2.log &
  echo $! > $pid
  until grep -qE '^(serving|INFO Connected)' $2.log 2> /dev/null; do sleep 0.1; done
fi
"""
"""A stand-in; nothing but its name is to be the system's."""


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    with tarfile.open(DATA) as data:
        data.extractall(tmp_path, filter="data")
    (tmp_path / "bin").mkdir()
    (tmp_path / "units").mkdir()
    (tmp_path / "bin" / "systemctl").write_text(SYSTEMCTL)
    (tmp_path / "bin" / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


def test_the_page_on_upkeep(fleet: Path) -> None:
    first, second = free_block(5), free_block(5)
    files = ("fleet/serve.toml", "fleet/deployment.json", "owners/anna.toml", "owners/ben.toml")
    for path in map(fleet.joinpath, files):
        text = path.read_text()
        for offset in range(3):
            text = text.replace(str(50051 + offset), str(first + offset))
        path.write_text(text)
    done = "disinherit request coverage letter-3"
    enrol = "disinherit agent --config /etc/disinherit/agent.toml --enrol - < anna.token"
    run(
        "docs/upkeep.md",
        fleet,
        {
            # As whoever runs this test: tests/deploy/test_units.py looks at users.
            "runuser -u disinherit -- /opt/disinherit/bin/disinherit": "command disinherit",
            "runuser -u disinherit -- env PYTHONPATH=/opt/disinherit/owner "
            "/opt/disinherit/bin/disinherit": "command disinherit",
            "cd /var/backups/disinherit\n": "",
            "git -C": ": git -C",
            # Ctrl-C, as a person would.
            f"{enrol}      # Ctrl-C once it says Connected": f"command {enrol} 2> agent.log &\n"
            "until grep -q Connected agent.log; do sleep 0.1; done\nkill $! && wait $!",
            "/etc/disinherit/agent.toml": "owners/anna.toml",
            "/etc/disinherit/ca.pem": "owners/ca.pem",
            "/var/lib/disinherit/agent.": "owners/state-anna/agent.",
            "/usr/local/src/disinherit": str(ROOT),
            "/etc/systemd/system/": "units/",
            "/opt/disinherit/bin/pip install": ": pip install",
            "coordinator.example.org:50151": f"localhost:{second}",
            "50151": str(second),
            "fleet.example.org:50051": f"localhost:{first}",
            done: f"until {{ {done} || true; }} | grep verified; do sleep 0.5; done; {done}",
            # Where release 0.1.0 put it.
            "/var/lib/disinherit/authority/signing.pem": "fleet/coordinator.db.signing.pem",
            " former/signing.pem former/signing.pem.head": "",
            "/var/lib/disinherit": "fleet",
        },
        seconds=900.0,
    )
    with ModelStore(fleet / "owners" / "anna", "anna") as store:
        versions = {record.id for record in store.records()}
    # What the restored coordinator asked again was not done twice.
    twice = "r1~letter-1~letter-2"
    assert versions == {"r1", "r1~letter-1", twice, f"{twice}~letter-3"}
    certificate = x509.load_pem_x509_certificate((fleet / "fleet" / "server.pem").read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "coordinator.example.org" in names.get_values_for_type(x509.DNSName)
    former = x509.load_pem_x509_certificate((fleet / "former" / "ca.pem").read_bytes())
    with pytest.raises(InvalidSignature):
        certificate.verify_directly_issued_by(former)
    attested = json.loads((fleet / "letter-2.json").read_bytes())
    assert b"r2~letter-1" in base64.b64decode(attested["payload"])
