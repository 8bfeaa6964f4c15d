"""Suites from TOML: those of the package, one's own, and those that make no sense."""

from pathlib import Path

import pytest

from disinherit.common.errors import InputError
from disinherit.simulations.bench.suites import Aims, declaration, load_suite
from disinherit.simulations.data import fonts
from disinherit.simulations.data.fonts import SYSTEM_FOLDER

GOOD = """
seeds = [0, 1]
methods = ["no-op", { name = "ours", label = "ours-all", options = { scope = "all" } }]

[aims]
methods = ["ours-all"]
rival = "no-op"

[panel]
shadows = 4

[defaults]
dataset = "digits"
network = "mlp"

[[cases]]
label = "one"
scenario = "federated"
forget = ["3"]

[[cases]]
label = "some"
granularity = "samples"
samples = 5
settings = { epochs = 2 }
"""


def load(tmp_path: Path, text: str) -> object:
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return load_suite(str(path))


def test_a_suite_has_a_case_for_each_label_and_seed(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(GOOD)

    suite = load_suite(str(path))

    assert suite.name == "mine"
    assert [(case.label, case.spec.settings.seed) for case in suite.cases] == [
        ("one", 0),
        ("one", 1),
        ("some", 0),
        ("some", 1),
    ]
    assert suite.cases[2].spec.settings.epochs == 2
    assert suite.methods[1].options == {"scope": "all"}
    assert suite.panel.shadows == 4
    assert suite.aims == Aims(("ours-all",), "no-op")
    assert declaration(suite) == declaration(load_suite(str(path)))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seeds = [0, 1]", "seeds = [1, 1]", "distinct seeds"),
        ("seeds = [0, 1]", "seeds = []", "a list that is not empty as seeds"),
        ("seeds = [0, 1]", "seeds = [0", "Expected TOML"),
        ("[panel]", "[pannel]", "pannel"),
        ("shadows = 4", "shades = 2", "shadows, .* in the panel of suite 'mine', but got shades"),
        ("shadows = 4", "shadows = 5", "even number of shadow models.* got 5"),
        ("shadows = 4", "shots = 0", "shots >= 1"),
        ("shadows = 4", "learning_rate = nan", "learning rate > 0"),
        ('"no-op", {', '"no-such-method", {', "no-such-method"),
        ('scope = "all"', 'scoop = "all"', "scoop"),
        ('rival = "no-op"', 'rival = "ssd"', "'ssd'"),
        ('methods = ["ours-all"]', "methods = []", "labels of methods"),
        ('methods = ["ours-all"]', 'methods = "ours-all"', "labels of methods"),
        ('rival = "no-op"', "", r"the key aims\.rival"),
        ('label = "some"', 'label = "one"', "distinct labels"),
        ('label = "some"', "label = 1", r"text as cases\[1\]\.label"),
        ('forget = ["3"]', 'forget = ["33"]', "33"),
        ("samples = 5", "", "samples > 0"),
        ("epochs = 2", "epochs = 0", "epochs >= 1"),
        ("epochs = 2", "eepochs = 2", "eepochs"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(
    old: str, new: str, message: str, tmp_path: Path
) -> None:
    assert old in GOOD

    with pytest.raises(InputError, match=message):
        load(tmp_path, GOOD.replace(old, new))


def test_a_suite_that_is_not_there_names_those_that_are() -> None:
    names = (
        "classes, deep-classes, depth, factored, glyphs, paper, privacy, quick, roots, samples, "
        "scale, skew, standard, vision"
    )
    with pytest.raises(InputError, match=names):
        load_suite("no-such-suite")


@pytest.mark.skipif(
    not (SYSTEM_FOLDER / "truetype" / "freefont").is_dir(), reason="needs fonts-freefont-ttf"
)
@pytest.mark.parametrize("name", ["glyphs", "vision"])
def test_suites_of_glyphs_fit_the_fonts_that_there_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fonts, "FOUNDRIES", {"GNU": fonts.FOUNDRIES["GNU"]})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    assert load_suite(name).name == name


@pytest.mark.parametrize("name", ["quick", "depth", "privacy", "scale", "skew"])
def test_the_suites_of_the_package_can_be_loaded(name: str) -> None:
    suite = load_suite(name)

    assert suite.name == name
    assert len({case.spec.name for case in suite.cases}) == len(suite.cases)
