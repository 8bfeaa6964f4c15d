"""A campaign over a tiny family gives what the methods of the benchmark compute, bit for bit."""

from functools import partial

import pytest
import torch

from disinherit.common.method import Method
from disinherit.simulations.data.fortunes import SYSTEM_FOLDER
from disinherit.simulations.family.campaign import measure_curvature, run_campaign, step_root
from disinherit.simulations.family.copies import COPIES
from disinherit.simulations.family.corpus import ids_of, make_corpus
from disinherit.simulations.family.members import MEMBERS, Size, build, data_of
from disinherit.simulations.family.methods import handed_down, replayed_root
from disinherit.simulations.family.problem import FamilyProblem, make_problem

pytestmark = [
    pytest.mark.skipif(not SYSTEM_FOLDER.exists(), reason="needs the package fortunes"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

TINY = Size(authors=4, width=32, layers=1, epochs=80, further=1)
ROOTS = {"replay": replayed_root, "ekfac": step_root}


@pytest.fixture(scope="module")
def problem() -> FamilyProblem:
    corpus = make_corpus(TINY.authors, 0, texts=10)
    gone = ids_of(corpus.authors[1:2])
    family = build(corpus, TINY, 0)
    replayed = build(corpus, TINY, 0, gone).weights["base"]
    curvature = measure_curvature(family, data_of(corpus, "base"))
    return make_problem(corpus, family, replayed, gone, lambda: curvature, 0)


@pytest.mark.parametrize("root", ROOTS)
def test_members_get_the_same_weights(problem: FamilyProblem, root: str) -> None:
    method = Method(scope="all", root_method=root, repair_steps=0)
    found = run_campaign(problem, method)
    expected = partial(handed_down, root=ROOTS[root])(problem)
    assert found.keys() == {
        name for name, one in MEMBERS.items() if not one.recipe or one.recipe.name not in COPIES
    }
    for member, weights in found.items():
        parents, adapter = MEMBERS[member].parents, MEMBERS[member].adapter
        wanted = expected.weights[parents[0] if adapter else member]
        for name, value in wanted.items():
            assert torch.equal(weights[name], value), (member, name)
        before = problem.family.weights[parents[0] if adapter else member]
        assert any(not torch.equal(weights[name], value) for name, value in before.items())
