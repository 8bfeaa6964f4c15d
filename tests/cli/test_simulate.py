"""`disinherit simulate` on a user's own files, with no option about training."""

import csv
import json
import random
from pathlib import Path

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from disinherit.cli.main import run
from disinherit.simulations.report.document import RunReport
from tests.support import direct_grid

LANGUAGES = ("da", "de", "es", "fr", "it", "nl", "pl", "sv")


def write_languages(path: Path, sentences: int) -> None:
    """A table of sentences in made-up languages that share letters and half of their words."""
    draw = random.Random(5)

    def words(count: int, letters: str) -> list[str]:
        return ["".join(draw.choices(letters, k=draw.randint(3, 8))) for _ in range(count)]

    common = words(30, "etaoinshrdlu")
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["text", "label"])
        for language in LANGUAGES:
            own = words(30, "etaoinshrdlu")
            for _ in range(sentences):
                table.writerow([" ".join(draw.choices(common + own, k=8)), language])


def write_images(folder: Path, each: int) -> None:
    """Small pictures of digits, in a folder for each."""
    bunch = load_digits()
    for digit in range(10):
        pictures = bunch.images[bunch.target == digit][: each + 10]
        for number, picture in enumerate(pictures):
            place = folder / ("train" if number < each else "test") / str(digit)
            place.mkdir(parents=True, exist_ok=True)
            image = Image.fromarray((picture * 15.9).astype("uint8"))
            image.save(place / f"{number}.png")


def simulated(
    dataset: Path, forget: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> RunReport:
    direct_grid.install(monkeypatch)
    out = str(dataset.parent / "run")
    words = ["simulate", "federated", "--dataset", str(dataset), "--forget", forget, "--out", out]
    assert run([*words, "--format", "json"]) == 0
    report: RunReport = json.loads(capsys.readouterr().out)
    return report


def retained(report: RunReport) -> dict[str, float | None]:
    return {model["id"]: model["before"]["retain_accuracy"] for model in report["models"]}


def test_texts_are_learned_without_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_languages(tmp_path / "languages.csv", sentences=100)
    report = simulated(tmp_path / "languages.csv", "pl", monkeypatch, capsys)
    assert all(found is not None and found > 60 for found in retained(report).values())
    for model in report["models"]:
        if model["role"] != "untouched":
            assert (model["before"]["forget_accuracy"] or 0) > 50


def test_pictures_are_learned_without_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(tmp_path / "pictures", each=60)
    report = simulated(tmp_path / "pictures", "3", monkeypatch, capsys)
    assert all(found is not None and found > 70 for found in retained(report).values())
