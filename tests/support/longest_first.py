"""The order of the tests' modules: those that take longest first.

Processes that share the tests take a module when they have nothing left.  A long one that is
taken last has the others wait for it.  At the start forks are cheapest, too: there is less to copy.
"""

LONGEST = (
    "tests/client/store/test_crash_points.py",
    "tests/acceptance/chaos/test_campaigns.py",
    "tests/project/test_benchmarks.py",
    "tests/acceptance/test_flower_superlink.py",
    "tests/simulations/run/test_engine.py",
    "tests/project/test_example_flower_app.py",
    "tests/deploy/test_up.py",
    "tests/acceptance/chaos/test_rounds.py",
    "tests/ui/test_browser.py",
    "tests/common/models/test_heads_census.py",
    "tests/project/test_torch_free.py",
    "tests/simulations/bench/test_inherited_attack.py",
    "tests/server/campaign/test_contact.py",
    "tests/simulations/bench/test_runner.py",
    "tests/server/flower/test_resident.py",
    "tests/client/store/test_killed_writes.py",
    "tests/acceptance/test_tutorials.py",
    "tests/ui/test_finished_runs_browser.py",
    "tests/simulations/family/test_running.py",
    "tests/flower/test_strategies.py",
    "tests/api/local/test_loaders.py",
    "tests/server/ports/test_floods.py",
)
"""Modules of more than some ten seconds, the longest first (`pytest --durations=100`)."""


def place(name: str) -> int:
    """Return where the module of a test comes; all that are not among the longest come last."""
    module = name.partition("::")[0]
    return LONGEST.index(module) if module in LONGEST else len(LONGEST)
