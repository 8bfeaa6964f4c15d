"""Files of other projects that are kept here, as NOTICE lists them.

    python -m tests.support.vendored

fetches the packages with `npm pack` and compares: a maintainer runs it after changing a version.
"""

import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests import ROOT

_ENTRY = re.compile(
    r"^  (?P<file>\S+)\n    (?P<package>\S+) (?P<version>\S+) (?P<path>\S+), (?P<licence>\S+)\n"
    r"    sha256 (?P<sha256>[0-9a-f]{64})$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Vendored:
    """A file, with its package, version and path there."""

    file: str
    package: str
    version: str
    path: str
    licence: str
    sha256: str


def vendored() -> Iterator[Vendored]:
    for match in _ENTRY.finditer((ROOT / "NOTICE").read_text()):
        yield Vendored(**match.groupdict())


def main() -> int:
    """Fetch every package, write the files that differ, and say their digests."""
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        for package in sorted({f"{one.package}@{one.version}" for one in vendored()}):
            subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True)
        for one in vendored():
            archive = Path(folder, f"{one.package}-{one.version}.tgz")
            with tarfile.open(archive) as opened:
                found = opened.extractfile(f"package/{one.path}")
                assert found is not None, one
                data = found.read()
            digest = hashlib.sha256(data).hexdigest()
            if digest != one.sha256 or (ROOT / one.file).read_bytes() != data:
                different += 1
                (ROOT / one.file).write_bytes(data)
                print(f"{one.file}\n    sha256 {digest}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
