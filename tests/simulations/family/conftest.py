"""What transformers imports must be there before its models are."""

from tests.support.head_census import shim_torchvision

shim_torchvision()
