"""The main job on real owners: what a run gives, refuses, survives, and never does twice."""

import dataclasses
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flwr.app import ConfigRecord, Message

from disinherit.client.store.store import ModelStore
from disinherit.common.errors import (
    CampaignError,
    CheckpointError,
    DataError,
    DisinheritError,
    InputError,
    RequestError,
    ScopeError,
    StoreError,
)
from disinherit.common.method import Method
from disinherit.common.wire.flower import unpack
from disinherit.simulations.report.check import check_report
from disinherit.simulations.report.document import ModelFigures, RunReport
from disinherit.simulations.run.run import run_scenario
from disinherit.simulations.run.training import build_simulation_app
from disinherit.simulations.scenario.settings import Settings
from disinherit.v1 import unlearning_pb2 as pb
from tests.support import direct_grid

PINNED = Method(alpha=1.0, lam=1.0, gauge=1.0)
LEARNED = Settings(
    "digits",
    {"r1": ("3",)},
    network="mlp",
    clients=3,
    limit=60,
    epochs=8,
    learning_rate=5e-3,
)
QUICK = dataclasses.replace(LEARNED, limit=10, epochs=15, batch_size=8, method=PINNED)
AFFECTED = ("r1", "r2", "r3", "r4", "r6")


@dataclasses.dataclass(frozen=True)
class Run:
    settings: Settings
    folder: Path
    report: RunReport
    messages: list[Message]
    said: list[str]


def run(settings: Settings, folder: Path, interfere: direct_grid.Interfere = lambda _: None) -> Run:
    said: list[str] = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        grids = direct_grid.install(monkeypatch, interfere)
        report = run_scenario(settings, folder, said.append)
    return Run(settings, folder, report, grids[0].pushed if grids else [], said)


@pytest.fixture(scope="module")
def one_root(tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = dataclasses.replace(LEARNED, compare_published=True)
    return run(settings, tmp_path_factory.mktemp("one") / "run")


@pytest.fixture(scope="module")
def two_roots(tmp_path_factory: pytest.TempPathFactory) -> Run:
    settings = dataclasses.replace(LEARNED, forget={"r1": ("3",), "r2": ("5",)}, clients=2)
    return run(settings, tmp_path_factory.mktemp("two") / "run")


@pytest.fixture
def finished(one_root: Run, tmp_path: Path) -> Path:
    """A copy of a finished run, to damage."""
    return shutil.copytree(one_root.folder, tmp_path / "run")


def models(report: RunReport) -> dict[str, ModelFigures]:
    return {model["id"]: model for model in report["models"]}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def tasks(messages: list[Message]) -> Iterator[pb.UnlearnTask]:
    for message in messages:
        if message.metadata.message_type == "train.unlearn":
            yield unpack(message.content, pb.UnlearnTask)


# What a run gives


def test_curvature_is_registered_for_a_run_that_needs_it(tmp_path: Path) -> None:
    method = Method(mechanism="delta", root_method="ekfac")
    made = run(dataclasses.replace(QUICK, method=method), tmp_path / "run")
    assert "No curvature" not in (models(made.report)["r1"]["error"] or "")


def test_changes_of_roots_are_handed_down_where_that_is_asked_for(tmp_path: Path) -> None:
    method = Method(mechanism="delta", root_method="replay", delta_encoding="int8")
    settings = dataclasses.replace(QUICK, method=method)
    made = run(settings, tmp_path / "run")
    assert made.report["request"]["method"]["root_method"] == "replay"
    root = models(made.report)["r1"]
    assert root["outcome"] == "applied"
    assert root["retrained"] is not None
    assert root["after"]["confusion"] == root["retrained"]["confusion"]  # it is the replay
    assert root["alpha"] is None
    assert all(models(made.report)[m]["outcome"] != "failed" for m in AFFECTED)


def test_every_affected_model_forgets_and_keeps_the_rest(one_root: Run) -> None:
    for model in AFFECTED:
        found = models(one_root.report)[model]
        before, after, retrained = found["before"], found["after"], found["retrained"]
        assert before["forget_accuracy"] is not None
        assert after["forget_accuracy"] is not None
        assert before["retain_accuracy"] is not None
        assert after["retain_accuracy"] is not None
        assert retrained is not None
        assert before["forget_accuracy"] > 50
        assert after["forget_accuracy"] < 10
        assert after["retain_accuracy"] > before["retain_accuracy"] - 10
        assert retrained["forget_accuracy"] == 0
        assert found["published"] is not None
        assert found["outcome"] == "applied"
        assert found["digest_after"] != found["digest_before"]


def test_what_is_not_below_a_root_stays_bit_for_bit(one_root: Run) -> None:
    for model in ("d", "s"):
        found = models(one_root.report)[model]
        assert found["role"] == found["outcome"] == "untouched"
        assert found["digest_after"] == found["digest_before"]
        assert found["before"] == found["after"]
        assert found["before"]["forget_accuracy"] is None
        assert found["retrained"] is None
        assert found["selected_fraction"] == 0


def test_the_report_is_one_and_is_what_was_written(one_root: Run) -> None:
    written = json.loads((one_root.folder / "report.json").read_text())
    assert check_report(written) == one_root.report
    assert one_root.report["campaign"]["outcome"] == "complete"
    assert one_root.report["campaign"]["coverage"]["applied"] == 5
    assert set(one_root.report["graph"]["affected"]) == set(AFFECTED)
    assert one_root.report["graph"]["untouched"] == ["d", "s"]
    assert all(seconds is not None for seconds in one_root.report["timing"].values())
    assert "report.html" in contents(one_root.folder)


def test_the_report_says_which_version_the_owners_hold(one_root: Run) -> None:
    for model in one_root.report["models"]:
        folder = one_root.folder / "owners" / model["owner"]
        with ModelStore(folder, model["owner"]) as store:
            active = [r for r in store.records() if r.id.split("~")[0] == model["id"]]
            assert {r.digest for r in active} == {model["digest_before"], model["digest_after"]}


def test_a_request_sent_twice_changes_nothing(one_root: Run) -> None:
    assert one_root.report["repeat"] == {"changed": 0, "already_applied": 5}


def test_what_happens_is_said(one_root: Run) -> None:
    trained = [line.split()[1] for line in one_root.said if line.startswith("trained ")]
    assert sorted(trained) == ["d", "r1", "r2", "r3", "r4", "r6", "s"]
    retrained = [line for line in one_root.said if line.startswith("retrained ")]
    assert len(retrained) == 5


def test_the_same_settings_give_the_same_digests(tmp_path: Path) -> None:
    first, second = (run(QUICK, tmp_path / name).report for name in ("one", "two"))
    for one, two in zip(first["models"], second["models"], strict=True):
        for key in ("id", "digest_before", "digest_after", "before", "after", "retrained"):
            assert one[key] == two[key]


@pytest.mark.parametrize("clients", [1, 2, 10])
def test_any_number_of_owners_holds_the_seven_models(clients: int, tmp_path: Path) -> None:
    settings = dataclasses.replace(QUICK, clients=clients)
    report = run(settings, tmp_path).report
    assert len(report["models"]) == 7
    assert len({model["owner"] for model in report["models"]}) == min(clients, 7)
    assert report["campaign"]["outcome"] == "complete"


@pytest.mark.parametrize(
    "change",
    [
        {"partition": "pathological", "clients": 7},
        {"partition": "dirichlet", "concentration": 0.1, "forget": {"r1": ("1",)}},
        {"method": Method(scope="all")},
        {"method": Method(), "limit": 2},
        {"batch_size": 1, "limit": 2},
        {"network": "cnn", "forget": {"d": ("3",), "s": ("5",)}},
    ],
)
def test_unequal_owners_and_other_methods_complete_too(
    change: dict[str, object], tmp_path: Path
) -> None:
    """Owners that lack classes of others, few samples, deeper scope, roots without parents."""
    settings = dataclasses.replace(QUICK, **change)  # type: ignore[arg-type]
    report = run(settings, tmp_path).report
    assert report["campaign"]["outcome"] == "complete"
    assert all(model["error"] is None for model in report["models"])
    assert report["repeat"]["changed"] == 0 if report["repeat"] else False


# Two roots


def test_a_model_is_dampened_only_with_what_it_inherited(two_roots: Run) -> None:
    found = models(two_roots.report)
    assert found["r1"]["upstream_roots"] == ["r1"]
    assert found["r1"]["forgotten"] == ["3"]
    for model in ("r2", "r3", "r4", "r6"):
        assert set(found[model]["upstream_roots"]) == {"r1", "r2"}
        assert set(found[model]["forgotten"]) == {"3", "5"}
    sources: dict[str, set[str]] = {}
    classes: dict[str, set[str]] = {}
    for task in tasks(two_roots.messages):
        for model_task in task.models:
            packet = task.fishers[model_task.fisher]
            sources[model_task.model_id] = set(packet.sources)
            classes[model_task.model_id] = set(packet.classes)
    assert sources == {m: {"r1"} if m == "r1" else {"r1", "r2"} for m in AFFECTED}
    assert classes == {m: {"3"} if m == "r1" else {"3", "5"} for m in AFFECTED}


def test_with_two_roots_each_model_forgets_its_own(two_roots: Run) -> None:
    for model in AFFECTED:
        found = models(two_roots.report)[model]
        before, after = found["before"]["forget_accuracy"], found["after"]["forget_accuracy"]
        assert before is not None
        assert after is not None
        assert before > 50
        assert after < 10
    for model in ("d", "s"):
        found = models(two_roots.report)[model]
        assert found["digest_after"] == found["digest_before"]


def test_a_class_a_model_never_met_counts_neither_as_forgotten_nor_as_kept(
    two_roots: Run,
) -> None:
    """r1 does not know class 5, which enters at r2: its samples are nowhere in r1's figures."""
    after = models(two_roots.report)["r1"]["after"]
    rows = after["confusion"]
    kept = [i for i in range(10) if i not in (3, 5)]
    right = sum(rows[i][i] for i in kept)
    assert after["retain_accuracy"] == pytest.approx(100 * right / sum(sum(rows[i]) for i in kept))
    assert rows[5][5] == 0


# The same folder again


def test_a_finished_run_repeats_its_request_and_changes_no_byte(
    one_root: Run, finished: Path
) -> None:
    before = contents(finished)
    again = run(one_root.settings, finished)
    assert contents(finished) == before
    assert again.messages == []
    assert again.report["campaign"]["outcome"] == "unchanged"
    assert again.report["repeat"] == {"changed": 0, "already_applied": 5}
    assert again.report["models"] == one_root.report["models"]


def test_other_settings_are_refused_in_the_folder_of_a_run(one_root: Run, finished: Path) -> None:
    before = contents(finished)
    with pytest.raises(InputError, match="other settings"):
        run(dataclasses.replace(one_root.settings, epochs=9), finished)
    assert contents(finished) == before


def weights_file(folder: Path, model: str, report: RunReport, *, after: bool) -> Path:
    found = models(report)[model]
    digest = found["digest_after"] if after else found["digest_before"]
    owner = folder / "owners" / found["owner"]
    with closing(sqlite3.connect(owner / "index.db")) as db:
        pack = db.execute("SELECT pack FROM parts WHERE digest = ?", (digest,)).fetchone()
    path = owner / "objects" / f"{pack[0] if pack else digest}.safetensors"
    assert path.is_file()
    return path


@pytest.mark.parametrize("model", ["d", "r1", "r6"])
@pytest.mark.parametrize("after", [True, False])
@pytest.mark.parametrize("kind", ["inverted", "missing"])
def test_a_damaged_checkpoint_is_named_with_its_model_and_nothing_is_changed(
    model: str, after: bool, kind: str, one_root: Run, finished: Path
) -> None:
    path = weights_file(finished, model, one_root.report, after=after)
    if kind == "inverted":
        data = path.read_bytes()
        start = 8 + int.from_bytes(data[:8], "little")  # of the values
        path.write_bytes(data[:start] + bytes(255 - byte for byte in data[start:]))
    else:
        path.unlink()
    before = contents(finished)
    with pytest.raises(CheckpointError, match=f"'{model}") as caught:
        run(one_root.settings, finished)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2
    assert contents(finished) == before


def test_a_damaged_fisher_summary_is_named(one_root: Run, finished: Path) -> None:
    owner = models(one_root.report)["r1"]["owner"]
    with ModelStore(finished / "owners" / owner, owner) as store:
        digest = store.record("r1").fisher_digest
    path = finished / "owners" / owner / "objects" / f"{digest}.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    before = contents(finished)
    with pytest.raises(CheckpointError, match="Fisher summary of model 'r1'") as caught:
        run(one_root.settings, finished)
    assert path.name in str(caught.value)
    assert contents(finished) == before


@pytest.mark.parametrize(
    ("lost", "error"),
    [
        ("coordinator.db", CheckpointError),
        ("owners/owner-1/index.db", CheckpointError),
        ("owners", CheckpointError),
    ],
)
def test_a_part_that_is_missing_is_named(
    lost: str, error: type[DisinheritError], one_root: Run, finished: Path
) -> None:
    path = finished / lost
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    before = contents(finished)
    with pytest.raises(error, match=lost.split("/")[0]):
        run(one_root.settings, finished)
    assert contents(finished) == before


@pytest.mark.parametrize("name", ["coordinator.db", "owners/owner-0/index.db"])
def test_a_damaged_database_is_one_line(name: str, one_root: Run, finished: Path) -> None:
    (finished / name).write_bytes(b"\0" * 4096)
    with pytest.raises((StoreError, CheckpointError), match=Path(name).name) as caught:
        run(one_root.settings, finished)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_an_owner_with_another_version_than_the_coordinator_knows_is_refused(
    one_root: Run, finished: Path
) -> None:
    """An owner's folder of another run, whole in itself."""
    other = dataclasses.replace(QUICK, seed=5)
    run(other, finished.parent / "other")
    shutil.rmtree(finished / "owners" / "owner-0")
    shutil.copytree(
        finished.parent / "other" / "owners" / "owner-0", finished / "owners" / "owner-0"
    )
    with pytest.raises(CheckpointError, match="owner-0 to hold model 'd' with digest"):
        run(one_root.settings, finished)


def test_a_run_that_was_cut_short_is_started_again(tmp_path: Path) -> None:
    def cut(message: Message) -> None:
        fit = message.content.get("fit")
        if isinstance(fit, ConfigRecord) and fit["model"] == "r2":
            raise RuntimeError("power lost")

    with pytest.raises(CampaignError, match="'r2' to be trained, but: power lost"):
        run(QUICK, tmp_path, cut)
    assert (tmp_path / "run.json").exists()
    assert not (tmp_path / "report.json").exists()
    with sqlite3.connect(tmp_path / "coordinator.db") as db:
        assert db.execute("SELECT count(*) FROM model").fetchone() == (3,)
    assert run(QUICK, tmp_path).report["campaign"]["outcome"] == "complete"


# What is refused before anything is written


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"forget": {"r9": ("3",)}}, RequestError, "root among"),
        ({"forget": {"r1": ("x",)}}, RequestError, "class among"),
        ({"dataset": "nowhere"}, DataError, "nowhere"),
        ({"clients": 5000}, DataError, "5000 clients"),
        ({"network": "text"}, InputError, "network 'text'"),
        ({"method": Method(scope="tail.*")}, ScopeError, "'tail.*' matches none"),
        ({"device": "cuda:99"}, InputError, "cuda:99"),
        ({"partition": "pathological", "clients": 2}, DataError, "classes per client"),
        (
            {"partition": "pathological", "clients": 7, "forget": {"r1": ("3", "0")}},
            DataError,
            "owner-2 to have samples of class '0', which enters with its model 'r1'",
        ),
        (
            {"partition": "dirichlet", "concentration": 0.01, "clients": 10},
            DataError,
            "owner-2 to have samples of class '3'",
        ),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_written(
    change: dict[str, object],
    error: type[DisinheritError],
    message: str,
    tmp_path: Path,
) -> None:
    settings = dataclasses.replace(QUICK, **change)  # type: ignore[arg-type]
    with pytest.raises(error, match=message):
        run(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_without_the_engine_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"Ray is not installed.*'\.\[simulation\]'"):
        run_scenario(QUICK, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_folder_may_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Owners are processes of their own, whose working directory may be another."""
    seen: list[Path] = []

    def spy(settings: Settings, folder: Path) -> object:
        seen.append(folder)
        return build_simulation_app(settings, folder)

    monkeypatch.setattr("disinherit.simulations.run.run.build_simulation_app", spy)
    monkeypatch.chdir(tmp_path)
    run(QUICK, Path("run"))
    assert seen == [tmp_path / "run"]


# What fails on the way


def spoil(folder: Path, model: str) -> None:
    """Damage the stored weights of a model."""
    for owner in (folder / "owners").iterdir():
        with ModelStore(owner, owner.name) as store:
            for record in store.records():
                if record.id == model:
                    path = owner / "objects" / f"{record.digest}.safetensors"
                    path.write_bytes(path.read_bytes()[:-4])


def before_first(action: str, what: Callable[[], None]) -> direct_grid.Interfere:
    """Do something when the first message of an action arrives."""
    done: list[bool] = []

    def interfere(message: Message) -> None:
        if message.metadata.message_type == action and not done:
            done.append(True)
            what()

    return interfere


@pytest.mark.parametrize("moment", ["query.register", "query.fisher", "train.unlearn"])
def test_a_checkpoint_damaged_on_the_way_costs_its_own_model_only(
    moment: str, tmp_path: Path
) -> None:
    found = run(QUICK, tmp_path, before_first(moment, lambda: spoil(tmp_path, "r6")))
    report = found.report
    check_report(json.loads((tmp_path / "report.json").read_text()))
    assert report["campaign"]["outcome"] == "partial"
    assert report["campaign"]["coverage"] == {
        "applied": 4,
        "already_applied": 0,
        "ineffective": 0,
        "not_reached": 0,
        "harmful": 0,
        "failed": 1,
        "pending": 0,
    }
    r6 = models(report)["r6"]
    assert r6["outcome"] == "failed"
    assert r6["error"] is not None
    assert "weights of model 'r6'" in r6["error"]
    assert r6["after"] == {"forget_accuracy": None, "retain_accuracy": None, "confusion": []}
    assert r6["digest_after"] == r6["digest_before"]
    assert r6["selected_fraction"] is None
    for model in ("r1", "r2", "r3", "r4"):
        assert models(report)[model]["outcome"] == "applied"
        assert models(report)[model]["after"]["forget_accuracy"] is not None
        assert models(report)[model]["error"] is None
    assert report["repeat"] == {"changed": 0, "already_applied": 4}


def test_a_damaged_root_leaves_no_fisher_and_the_report_says_so(tmp_path: Path) -> None:
    found = run(QUICK, tmp_path, before_first("query.fisher", lambda: spoil(tmp_path, "r1")))
    report = found.report
    assert report["campaign"]["outcome"] == "failed"
    for model in AFFECTED:
        error = models(report)[model]["error"]
        assert error is not None
        assert "r1" in error
    assert models(report)["r2"]["after"]["forget_accuracy"] is not None


@pytest.mark.parametrize(
    "action", ["query.register", "train.unlearn", "evaluate.panel", "evaluate.preview"]
)
def test_an_owner_that_fails_at_one_thing_spoils_nothing_else(action: str, tmp_path: Path) -> None:
    def interfere(message: Message) -> None:
        if message.metadata.message_type == action and message.metadata.dst_node_id == 2:
            raise MemoryError("no memory left")

    settings = dataclasses.replace(QUICK, compare_published=True)
    report = run(settings, tmp_path, interfere).report
    check_report(json.loads((tmp_path / "report.json").read_text()))
    found = models(report)
    mine = [m for m in found.values() if m["owner"] == "owner-1"]
    others = [m for m in found.values() if m["owner"] != "owner-1"]
    assert mine
    assert all(m["after"]["retain_accuracy"] is not None for m in others)
    assert all(m["outcome"] in ("applied", "untouched") and m["error"] is None for m in others)
    told = [*report["campaign"]["notes"], *(m["error"] or "" for m in mine)]
    assert any("no memory left" in line for line in told)
    if action == "evaluate.panel":
        assert all(m["before"]["retain_accuracy"] is None for m in mine)
        assert all(m["error"] and "no memory left" in m["error"] for m in mine)
    if action == "query.register":  # summaries are then computed when they are needed
        assert report["campaign"]["outcome"] == "complete"
    if action == "evaluate.preview":
        assert report["campaign"]["outcome"] == "complete"
        assert all(m["published"] is None for m in mine)


def test_a_reference_that_cannot_be_had_does_not_take_the_report_away(tmp_path: Path) -> None:
    def interfere(message: Message) -> None:
        fit = message.content.get("fit")
        if isinstance(fit, ConfigRecord) and not fit["keep"]:
            raise MemoryError("no memory left")

    report = run(QUICK, tmp_path, interfere).report
    assert report["campaign"]["outcome"] == "complete"
    assert all(model["retrained"] is None for model in report["models"])
    assert report["timing"]["retrain_all"] is None
    assert any("'r1' to be trained, but: no memory" in n for n in report["campaign"]["notes"])
