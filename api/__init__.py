"""Public names of Disinherit; everything else may move between releases.

A name is loaded when it is first used, so that ``import disinherit`` costs nothing, PyTorch
included.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from disinherit.client.client_app import build_client_app
    from disinherit.client.owner.owner import KeepsCurvature, Owner, ResolvesSamples, Retrains
    from disinherit.client.privacy.acceptance import AcceptancePolicy
    from disinherit.client.privacy.policy import ReleasePolicy
    from disinherit.client.store.ledger import Commit, Forgotten, LedgerEntry
    from disinherit.client.store.store import ModelStore
    from disinherit.common.encodings import Encoding, SummaryForm
    from disinherit.common.errors import (
        AuditError,
        CampaignError,
        CheckpointError,
        DataError,
        DisinheritError,
        FisherError,
        GraphError,
        HeldError,
        InputError,
        KeyRefusedError,
        LabelError,
        LostHistoryError,
        NoSamplesError,
        NotAllowedError,
        NotApplicableError,
        NotDrivenError,
        NotFoundError,
        NotKnownError,
        NotMeasuredError,
        NotNowError,
        NotOnOfferError,
        OffsetError,
        RequestError,
        ScopeError,
        StoppingError,
        StoreError,
        TokenError,
        UnreachableError,
        UntrainedError,
        WithheldError,
    )
    from disinherit.common.fisher.classes import ClassFishers
    from disinherit.common.fisher.diagonal import fisher_diagonal
    from disinherit.common.fisher.pooled import Fisher
    from disinherit.common.fiun.alignment import align_rows
    from disinherit.common.fiun.dampening import Dampened
    from disinherit.common.fiun.merging import merge_fishers
    from disinherit.common.fiun.unlearning import unlearn_parameters
    from disinherit.common.graph.formats import dump_graph, load_graph
    from disinherit.common.graph.graph import InheritanceGraph
    from disinherit.common.graph.recipes import Recipe
    from disinherit.common.graph.records import (
        FisherScale,
        Inheritance,
        InheritanceKind,
        ModelRecord,
        ModelStatus,
        Provenance,
    )
    from disinherit.common.method import Method
    from disinherit.common.models.heads import Head, HeadLayer, find_head
    from disinherit.common.wire.requests import Request
    from disinherit.common.wire.roll_out import RollOut, Wave
    from disinherit.common.wire.samples import SampleDigests
    from disinherit.describing import describe_model
    from disinherit.direct import DirectTransport
    from disinherit.local.network import Network
    from disinherit.local.outcome_table import Figure, ForgetResult, ModelOutcome
    from disinherit.server.campaign.coordinator import Coordinator
    from disinherit.server.campaign.result import CampaignResult, Timing
    from disinherit.server.flower.owner_keys import read_owner_keys
    from disinherit.server.flower.owners import Directory, NamedOwners, RegisteredOwners
    from disinherit.server.flower.server_app import build_server_app
    from disinherit.server.flower.transport import FlowerTransport
    from disinherit.server.planning.notes import PlanNote
    from disinherit.server.planning.plan import Group, Plan
    from disinherit.server.planning.previews import PlannedModel, Preview
    from disinherit.server.planning.recipes import Computed, Ingredient
    from disinherit.server.recording.calibration import calibrate
    from disinherit.server.recording.outbox import LineageSink
    from disinherit.server.recording.recorder import LineageRecorder, record_lineage
    from disinherit.server.states import Task, TaskState
    from disinherit.server.store.store import CoordinatorStore
    from disinherit.server.transport.base import Answer, Ask, Transport

    __version__: str

__all__ = [  # noqa: RUF022  # grouped as docs/api.md is
    # One process
    "Network",
    "ForgetResult",
    "ModelOutcome",
    "Figure",
    # A request
    "Request",
    "SampleDigests",
    "Method",
    "RollOut",
    "Wave",
    # The graph
    "InheritanceGraph",
    "load_graph",
    "dump_graph",
    "ModelRecord",
    "ModelStatus",
    "FisherScale",
    "Inheritance",
    "InheritanceKind",
    "Provenance",
    "Recipe",
    "describe_model",
    # The method, by itself
    "find_head",
    "Head",
    "HeadLayer",
    "fisher_diagonal",
    "Fisher",
    "ClassFishers",
    "align_rows",
    "merge_fishers",
    "unlearn_parameters",
    "Dampened",
    # A federation
    "Owner",
    "ResolvesSamples",
    "Retrains",
    "KeepsCurvature",
    "ModelStore",
    "Commit",
    "LedgerEntry",
    "Forgotten",
    "ReleasePolicy",
    "SummaryForm",
    "AcceptancePolicy",
    "Encoding",
    "build_client_app",
    "Coordinator",
    "Plan",
    "Group",
    "Computed",
    "Ingredient",
    "Preview",
    "PlannedModel",
    "PlanNote",
    "CampaignResult",
    "Task",
    "TaskState",
    "Timing",
    "CoordinatorStore",
    "DirectTransport",
    "Transport",
    "Ask",
    "Answer",
    "FlowerTransport",
    "RegisteredOwners",
    "NamedOwners",
    "Directory",
    "read_owner_keys",
    "build_server_app",
    "record_lineage",
    "LineageRecorder",
    "LineageSink",
    "calibrate",
    # Errors
    "DisinheritError",
    "InputError",
    "GraphError",
    "ScopeError",
    "FisherError",
    "NoSamplesError",
    "LabelError",
    "RequestError",
    "WithheldError",
    "DataError",
    "AuditError",
    "TokenError",
    "KeyRefusedError",
    "NotOnOfferError",
    "OffsetError",
    "NotFoundError",
    "NotNowError",
    "NotAllowedError",
    "NotKnownError",
    "CheckpointError",
    "StoreError",
    "LostHistoryError",
    "UnreachableError",
    "UntrainedError",
    "StoppingError",
    "CampaignError",
    "NotDrivenError",
    "HeldError",
    "NotApplicableError",
    "NotMeasuredError",
    "__version__",
]

_MODULES = {
    "client.client_app": ("build_client_app",),
    "client.owner.owner": (
        "KeepsCurvature",
        "Owner",
        "ResolvesSamples",
        "Retrains",
    ),
    "client.privacy.acceptance": ("AcceptancePolicy",),
    "client.privacy.policy": ("ReleasePolicy",),
    "client.store.ledger": (
        "Commit",
        "Forgotten",
        "LedgerEntry",
    ),
    "client.store.store": ("ModelStore",),
    "common.encodings": (
        "Encoding",
        "SummaryForm",
    ),
    "common.errors": (
        "AuditError",
        "CampaignError",
        "CheckpointError",
        "DataError",
        "DisinheritError",
        "FisherError",
        "GraphError",
        "HeldError",
        "InputError",
        "KeyRefusedError",
        "LabelError",
        "LostHistoryError",
        "NotAllowedError",
        "NotApplicableError",
        "NotDrivenError",
        "NotFoundError",
        "NotKnownError",
        "NotMeasuredError",
        "NoSamplesError",
        "NotNowError",
        "NotOnOfferError",
        "OffsetError",
        "RequestError",
        "ScopeError",
        "StoppingError",
        "StoreError",
        "TokenError",
        "UnreachableError",
        "UntrainedError",
        "WithheldError",
    ),
    "common.fisher.classes": ("ClassFishers",),
    "common.fisher.diagonal": ("fisher_diagonal",),
    "common.fisher.pooled": ("Fisher",),
    "common.fiun.dampening": ("Dampened",),
    "common.fiun.alignment": ("align_rows",),
    "common.fiun.merging": ("merge_fishers",),
    "common.fiun.unlearning": ("unlearn_parameters",),
    "common.graph.formats": (
        "dump_graph",
        "load_graph",
    ),
    "common.graph.graph": ("InheritanceGraph",),
    "common.graph.recipes": ("Recipe",),
    "common.graph.records": (
        "FisherScale",
        "Inheritance",
        "InheritanceKind",
        "ModelRecord",
        "ModelStatus",
        "Provenance",
    ),
    "common.method": ("Method",),
    "common.models.heads": (
        "Head",
        "HeadLayer",
        "find_head",
    ),
    "common.wire.requests": ("Request",),
    "common.wire.roll_out": (
        "RollOut",
        "Wave",
    ),
    "common.wire.samples": ("SampleDigests",),
    "describing": ("describe_model",),
    "direct": ("DirectTransport",),
    "local.network": ("Network",),
    "local.outcome_table": (
        "Figure",
        "ForgetResult",
        "ModelOutcome",
    ),
    "server.campaign.coordinator": ("Coordinator",),
    "server.campaign.result": (
        "CampaignResult",
        "Timing",
    ),
    "server.flower.owner_keys": ("read_owner_keys",),
    "server.flower.owners": (
        "Directory",
        "NamedOwners",
        "RegisteredOwners",
    ),
    "server.flower.server_app": ("build_server_app",),
    "server.flower.transport": ("FlowerTransport",),
    "server.planning.notes": ("PlanNote",),
    "server.planning.plan": (
        "Group",
        "Plan",
    ),
    "server.planning.previews": (
        "PlannedModel",
        "Preview",
    ),
    "server.planning.recipes": (
        "Computed",
        "Ingredient",
    ),
    "server.recording.calibration": ("calibrate",),
    "server.recording.outbox": ("LineageSink",),
    "server.recording.recorder": (
        "LineageRecorder",
        "record_lineage",
    ),
    "server.states": (
        "Task",
        "TaskState",
    ),
    "server.store.store": ("CoordinatorStore",),
    "server.transport.base": (
        "Answer",
        "Ask",
        "Transport",
    ),
}
_ROOMS = ("flower", "huggingface")
"""Modules with public names of their own, which need the packages of an extra."""
_HOMES = {name: f"{__name__}.{module}" for module, names in _MODULES.items() for name in names}


def _load(name: str) -> ModuleType:
    """Return the module of a name, or raise an error that names what to install."""
    try:
        return import_module(_HOMES[name])
    except Exception as error:
        from disinherit.common.extras import explained

        raise explained(error, f"disinherit.{name}") from None


if not TYPE_CHECKING:  # or a name that is not there would pass as any

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version

            value: object = version("disinherit")
        elif name in _HOMES:
            value = getattr(_load(name), name)
        elif name in _ROOMS:
            return import_module(f"{__name__}.{name}")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted(__all__)
