"""Settings for all tests."""

from hypothesis import settings

# A busy machine must not fail a property test for being slow.
settings.register_profile("disinherit", deadline=None)
settings.load_profile("disinherit")
