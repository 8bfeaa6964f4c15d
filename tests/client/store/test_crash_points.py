"""An apply killed, or failed by the disk, at every file operation: the store is old or new.

Every system call of the apply that changes a file is enumerated.  The process is killed by SIGKILL
before it, or it fails with an error; then the owner is opened again, and the message comes again.
"""

import re
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest
import torch

from disinherit.client.actions.delta import root_deltas
from disinherit.client.actions.unlearn import unlearn
from disinherit.client.dampening.summaries import register
from disinherit.client.privacy.sample_keys import KEY_FILE
from disinherit.client.store.ledger import LedgerEntry
from disinherit.client.store.store import ModelStore
from disinherit.common.errors import DisinheritError
from disinherit.common.graph.records import ModelStatus
from disinherit.common.tensors.checkpoints import weights_digest
from disinherit.v1 import unlearning_pb2 as pb
from tests.support.client_tasks import collect, make_method, make_task
from tests.support.delta_tasks import asked_change, delta_question, delta_task
from tests.support.owner import LABELS, PointsOwner
from tests.support.retraining_owner import RetrainingOwner
from tests.support.tracing import Operation, interrupted, operations, skip_without_tracing

REFUSED = {
    "ENOSPC": re.compile("No space left on device|disk is full|readonly|unable to open"),
    "EIO": re.compile("[Ii]nput/output error|I/O error|readonly|unable to open"),
}
WRITTEN_OUT = (
    "SELECT base FROM parts UNION SELECT pack FROM parts UNION SELECT d FROM "
    "(SELECT digest d FROM models UNION SELECT fisher_digest FROM models) "
    "WHERE d NOT IN (SELECT digest FROM parts) UNION SELECT digest FROM prepared"
)
"""Objects of versions, their deltas, and weights that were made for a request."""
APPLIED, AGAIN, FAILED = pb.OUTCOME_APPLIED, pb.OUTCOME_ALREADY_APPLIED, pb.OUTCOME_FAILED

pytestmark = pytest.mark.slow


class Undisturbed:
    """An owner with models to unlearn in, and the undisturbed results.

    Args:
        scratch: an empty folder.
        models: of "m" and "n", those to unlearn in.
        together: whether they have Fisher summaries, so that they are unlearned in together.

    Attributes:
        base: the owner's folder before.
        task: the message.
        digests: model -> digest of its successor.
        operations: what the apply does to the folder's files.
        commits: how many transactions change models.
        after_commits: the syncs of the folder when the index's journal was removed after these.
    """

    def __init__(self, scratch: Path, models: Sequence[str], together: bool = False) -> None:
        self.scratch = scratch
        self.models = models
        self.together = together
        self.commits = 1 if together else len(models)
        self.base = scratch / "base"
        with self.open(self.base) as owner:
            owner.train("m", LABELS, 1)
            owner.train("n", ("cat", "dog"), 2, start=[owner.store.weights("m")])
        self.task = self.make_task()
        done = self.copy("done")
        results = self.apply(done)  # also loads modules before the forks
        assert [result.outcome for result in results] == [APPLIED] * len(models)
        self.digests = {one.model_id: one.successor.digest for one in results}
        self.objects = objects_of(done)
        traced = self.copy("traced")
        self.operations = operations(partial(self.apply_and_tell, traced), traced)
        calls = [operation.call for operation in self.operations]
        commits = [place for place, call in enumerate(calls) if call == "unlink"]
        # One for each model; what is kept for it was committed before, and changes no model.
        self.after_commits = [
            self.operations[place + 1] for place in commits[len(commits) - self.commits :]
        ]

    def open(self, root: Path) -> PointsOwner:
        return PointsOwner(root, "anna")

    def make_task(self) -> pb.UnlearnTask:
        with self.open(self.base) as owner:
            if self.together:
                register(owner, pb.RegisterTask(scope="head"))
            packet = collect(owner, "m", ["cat"], make_method())
            return make_task(owner, self.models, packet, make_method())

    def copy(self, name: str) -> Path:
        root = self.scratch / name
        shutil.copytree(self.base, root)
        return root

    def apply(self, root: Path) -> list[pb.ModelResult]:
        with self.open(root) as owner:
            if self.together:  # models with data are measured one by one
                owner.lose_data()
            return self.results(owner)

    def results(self, owner: PointsOwner) -> list[pb.ModelResult]:
        return list(unlearn(owner, self.task).models)

    def apply_and_tell(self, root: Path) -> None:
        """Apply, and store the reply beside the folder, as if sent."""
        try:
            results = self.apply(root)
        except DisinheritError as error:  # the owner could not be opened; an agent reports it
            results = [failed(model, str(error)) for model in self.models]
        reply = pb.UnlearnReply(models=results)
        root.with_name(f"{root.name}.reply").write_bytes(reply.SerializeToString())

    def check(self, root: Path) -> list[str]:
        """Return whether each model is old or new; no other state is allowed."""
        with ModelStore(root, "anna") as store:
            outcomes = [self._check_one(store, model) for model in self.models]
        with closing(sqlite3.connect(root / "index.db")) as db:
            digests = {digest for (digest,) in db.execute(WRITTEN_OUT)} - {""}
        assert objects_of(root) == {f"{digest}.safetensors" for digest in digests}
        return outcomes

    def _check_one(self, store: ModelStore, model: str) -> str:
        record, entry = store.record(model), self.entry(store, model)
        assert store.weights(model).keys()  # verified by digest
        assert record.digest == self.before(model)
        successor = f"{model}~{self.task.request_id}"
        if entry is None:
            assert record.status is ModelStatus.ACTIVE
            assert successor not in {one.id for one in store.records()}
            return "old"
        assert record.status is ModelStatus.SUPERSEDED
        assert entry.successor_id == successor
        assert entry.digest_after == store.record(successor).digest == self.digests[model]
        assert store.record(successor).status is ModelStatus.ACTIVE
        assert store.weights(successor).keys() == store.weights(model).keys()
        self.check_summary(store, successor)
        return "new"

    def entry(self, store: ModelStore, model: str) -> LedgerEntry | None:
        return store.applied(self.task.request_id, self.before(model), model)

    def check_summary(self, store: ModelStore, successor: str) -> None:
        fishers = store.fishers(successor)
        assert fishers is not None
        assert not fishers[0].counts[LABELS.index("cat")]

    def before(self, model: str) -> str:
        return next(one.digest for one in self.task.models if one.model_id == model)

    def repeat(self, root: Path, outcomes: list[str]) -> None:
        """Repeat the message: missing models are done, and no model twice."""
        results = self.apply(root)
        expected = [AGAIN if outcome == "new" else APPLIED for outcome in outcomes]
        assert [result.outcome for result in results] == expected
        assert {one.model_id: one.successor.digest for one in results} == self.digests
        assert self.check(root) == ["new"] * len(self.models)
        held = {path.name for path in root.iterdir()} - {KEY_FILE}
        assert held == {"index.db", "lock", "objects"}
        if not self.together:  # a model that fails in the stack first is written out
            assert objects_of(root) == self.objects


class UndisturbedChanges(Undisturbed):
    """Root "m", which is trained again and kept, and "n", which gets its change.

    Attributes:
        question: the message before.
    """

    question: pb.FisherTask

    def open(self, root: Path) -> PointsOwner:
        return RetrainingOwner(root, "anna")

    def make_task(self) -> pb.UnlearnTask:
        samples = ["cat-1", "dog-2"]
        asked = self.copy("asked")
        with self.open(asked) as owner:
            packet = asked_change(owner, "m", samples)
        # The key of its samples is there now, and nothing else.
        shutil.copy(asked / KEY_FILE, self.base / KEY_FILE)
        with self.open(self.base) as owner:
            task = delta_task(owner, [packet], {"m": [1.0], "n": [1.0]}, own={"m": samples})
            self.question = delta_question(owner, "m", samples)
        return task

    def results(self, owner: PointsOwner) -> list[pb.ModelResult]:
        (answer,) = root_deltas(owner, self.question).roots
        if answer.error:
            return [failed(model, answer.error) for model in self.models]
        assert list(answer.packets) == list(self.task.fishers)
        return super().results(owner)

    def check_summary(self, store: ModelStore, successor: str) -> None:
        assert store.fishers(successor) is None

    def _check_one(self, store: ModelStore, model: str) -> str:
        outcome = super()._check_one(store, model)
        kept = store.prepared(self.task.request_id, model)  # verified by digest
        if kept is not None:
            assert outcome == "old"
            assert model == "m"
            assert weights_digest(kept[0]) == self.digests[model]
        return outcome


def failed(model: str, error: str) -> pb.ModelResult:
    return pb.ModelResult(model_id=model, outcome=FAILED, error=error)


def objects_of(root: Path) -> set[str]:
    return {path.name for path in (root / "objects").iterdir()}


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    skip_without_tracing()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # a second thread is slower for such small networks
    yield tmp_path_factory.mktemp("apply")
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def of_one(scratch: Path) -> Undisturbed:
    return Undisturbed(scratch / "one", ["n"])


@pytest.fixture(scope="module")
def of_two(scratch: Path) -> Undisturbed:
    return Undisturbed(scratch / "two", ["m", "n"])


@pytest.fixture(scope="module")
def of_changes(scratch: Path) -> Undisturbed:
    return UndisturbedChanges(scratch / "changes", ["m", "n"])


@pytest.fixture(scope="module")
def of_two_together(scratch: Path) -> Undisturbed:
    return Undisturbed(scratch / "together", ["m", "n"], together=True)


def at_every(
    undisturbed: Undisturbed, how: str, check: Callable[[Path, int, Operation], list[str]]
) -> list[str]:
    """Disturb the apply at one operation after the other, and return how many models were new."""
    seen = []
    for position, operation in enumerate(undisturbed.operations):
        root = undisturbed.copy(f"disturbed-{position}")
        code = interrupted(partial(undisturbed.apply_and_tell, root), operation, how)
        try:
            outcomes = check(root, code, operation)
            undisturbed.repeat(root, outcomes)
        except AssertionError as error:
            raise AssertionError(f"disturbed at {operation}") from error
        seen.append("+".join(outcomes))
        shutil.rmtree(root)
        root.with_name(f"{root.name}.reply").unlink(missing_ok=True)
    return seen


def only_newer(undisturbed: Undisturbed, seen: list[str]) -> None:
    """Assert that models become new one after the other, and never old again.

    Operations of one call are compared with each other: an operation is found by its number among
    them, and a busy machine can have the process make one call of a kind more or less.
    """
    of_call: dict[str, list[str]] = {}
    for operation, outcomes in zip(undisturbed.operations, seen, strict=True):
        of_call.setdefault(operation.call, []).append(outcomes)
    for one_after_another in of_call.values():
        assert one_after_another == sorted(one_after_another, key=lambda one: one.count("new"))


def test_apply_uses_the_enumerated_file_operations(of_two: Undisturbed) -> None:
    calls = [operation.call for operation in of_two.operations]
    assert len(calls) > 100
    # Per model two objects, each written, synced, renamed; the index by SQLite, with its journal.
    assert calls.count("rename") == calls.count("write") == 4
    assert calls.count("unlink") == 2
    assert calls.count("pwrite64") > 40
    assert calls.count("fdatasync") >= 8
    assert {"openat", "fsync", "flock"} <= set(calls)


def test_kill_at_any_file_operation_leaves_old_or_new(of_two: Undisturbed) -> None:
    def check(root: Path, code: int, operation: Operation) -> list[str]:
        assert code == -signal.SIGKILL
        assert not root.with_name(f"{root.name}.reply").exists()
        return of_two.check(root)

    seen = at_every(of_two, "signal=SIGKILL", check)
    only_newer(of_two, seen)
    assert set(seen) == {"old+old", "new+old", "new+new"}


def test_kill_at_any_file_operation_leaves_all_stacked_models_old_or_new(
    of_two_together: Undisturbed,
) -> None:
    calls = [operation.call for operation in of_two_together.operations]
    # One object with the changes of both, and one commit.
    assert calls.count("rename") == calls.count("write") == calls.count("unlink") == 1

    def check(root: Path, code: int, operation: Operation) -> list[str]:
        assert code == -signal.SIGKILL
        assert not root.with_name(f"{root.name}.reply").exists()
        return of_two_together.check(root)

    seen = at_every(of_two_together, "signal=SIGKILL", check)
    only_newer(of_two_together, seen)
    assert set(seen) == {"old+old", "new+new"}


def test_kill_while_a_root_is_kept_or_applied_leaves_old_or_new(of_changes: Undisturbed) -> None:
    calls = [operation.call for operation in of_changes.operations]
    # The root's new weights are written twice: when they are kept, and when they are applied.
    assert calls.count("rename") == calls.count("unlink") == 3

    def check(root: Path, code: int, operation: Operation) -> list[str]:
        assert code == -signal.SIGKILL
        assert not root.with_name(f"{root.name}.reply").exists()
        return of_changes.check(root)

    seen = at_every(of_changes, "signal=SIGKILL", check)
    only_newer(of_changes, seen)
    assert set(seen) == {"old+old", "new+old", "new+new"}


@pytest.mark.parametrize(
    ("which", "error"),
    [
        ("of_one", "ENOSPC"),
        ("of_one", "EIO"),
        ("of_two_together", "ENOSPC"),
        ("of_changes", "ENOSPC"),
    ],
)
def test_disk_error_at_any_file_operation_is_reported(
    which: str, error: str, request: pytest.FixtureRequest
) -> None:
    """A model reported as new is new; a failed one has a reason and is old."""
    undisturbed: Undisturbed = request.getfixturevalue(which)
    reported = 0

    def check(root: Path, code: int, operation: Operation) -> list[str]:
        nonlocal reported
        assert code == 0
        outcomes = undisturbed.check(root)
        reply = pb.UnlearnReply.FromString(root.with_name(f"{root.name}.reply").read_bytes())
        for result, outcome in zip(reply.models, outcomes, strict=True):
            if result.outcome == APPLIED:
                assert outcome == "new"
                continue
            assert result.outcome == FAILED
            assert REFUSED[error].search(result.error), result.error
            assert "\n" not in result.error
            # Without its journal, the commit has happened, but may not be durable.
            assert outcome == ("new" if operation in undisturbed.after_commits else "old")
            reported += 1
        return outcomes

    at_every(undisturbed, f"error={error}", check)
    assert reported > len(undisturbed.operations) // 2
