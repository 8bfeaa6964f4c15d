from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ModelStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    MODEL_STATUS_UNSPECIFIED: _ClassVar[ModelStatus]
    MODEL_STATUS_ACTIVE: _ClassVar[ModelStatus]
    MODEL_STATUS_SUPERSEDED: _ClassVar[ModelStatus]
    MODEL_STATUS_RETIRED: _ClassVar[ModelStatus]

class InheritanceKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    INHERITANCE_KIND_UNSPECIFIED: _ClassVar[InheritanceKind]
    INHERITANCE_KIND_FEDERATED: _ClassVar[InheritanceKind]
    INHERITANCE_KIND_DISTRIBUTED: _ClassVar[InheritanceKind]
    INHERITANCE_KIND_INCREMENTAL: _ClassVar[InheritanceKind]
    INHERITANCE_KIND_TRANSFER: _ClassVar[InheritanceKind]
    INHERITANCE_KIND_UNLEARNED: _ClassVar[InheritanceKind]
MODEL_STATUS_UNSPECIFIED: ModelStatus
MODEL_STATUS_ACTIVE: ModelStatus
MODEL_STATUS_SUPERSEDED: ModelStatus
MODEL_STATUS_RETIRED: ModelStatus
INHERITANCE_KIND_UNSPECIFIED: InheritanceKind
INHERITANCE_KIND_FEDERATED: InheritanceKind
INHERITANCE_KIND_DISTRIBUTED: InheritanceKind
INHERITANCE_KIND_INCREMENTAL: InheritanceKind
INHERITANCE_KIND_TRANSFER: InheritanceKind
INHERITANCE_KIND_UNLEARNED: InheritanceKind

class Provenance(_message.Message):
    __slots__ = ("dataset", "samples_per_class", "sample_set_digest")
    class SamplesPerClassEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    DATASET_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_PER_CLASS_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_SET_DIGEST_FIELD_NUMBER: _ClassVar[int]
    dataset: str
    samples_per_class: _containers.ScalarMap[str, int]
    sample_set_digest: str
    def __init__(self, dataset: _Optional[str] = ..., samples_per_class: _Optional[_Mapping[str, int]] = ..., sample_set_digest: _Optional[str] = ...) -> None: ...

class FisherScale(_message.Message):
    __slots__ = ("scope", "sums")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    scope: str
    sums: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, scope: _Optional[str] = ..., sums: _Optional[_Iterable[float]] = ...) -> None: ...

class ModelRecord(_message.Message):
    __slots__ = ("id", "owner", "architecture", "labels", "digest", "created_us", "provenance", "fisher_digest", "status", "fisher_scale")
    ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    ARCHITECTURE_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CREATED_US_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    FISHER_DIGEST_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FISHER_SCALE_FIELD_NUMBER: _ClassVar[int]
    id: str
    owner: str
    architecture: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    digest: str
    created_us: int
    provenance: Provenance
    fisher_digest: str
    status: ModelStatus
    fisher_scale: FisherScale
    def __init__(self, id: _Optional[str] = ..., owner: _Optional[str] = ..., architecture: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., digest: _Optional[str] = ..., created_us: _Optional[int] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ..., fisher_digest: _Optional[str] = ..., status: _Optional[_Union[ModelStatus, str]] = ..., fisher_scale: _Optional[_Union[FisherScale, _Mapping]] = ...) -> None: ...

class Inheritance(_message.Message):
    __slots__ = ("parent", "child", "kind", "weight", "labels")
    class LabelsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    PARENT_FIELD_NUMBER: _ClassVar[int]
    CHILD_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    parent: str
    child: str
    kind: InheritanceKind
    weight: float
    labels: _containers.ScalarMap[str, str]
    def __init__(self, parent: _Optional[str] = ..., child: _Optional[str] = ..., kind: _Optional[_Union[InheritanceKind, str]] = ..., weight: _Optional[float] = ..., labels: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Graph(_message.Message):
    __slots__ = ("schema_version", "models", "edges")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    models: _containers.RepeatedCompositeFieldContainer[ModelRecord]
    edges: _containers.RepeatedCompositeFieldContainer[Inheritance]
    def __init__(self, schema_version: _Optional[int] = ..., models: _Optional[_Iterable[_Union[ModelRecord, _Mapping]]] = ..., edges: _Optional[_Iterable[_Union[Inheritance, _Mapping]]] = ...) -> None: ...
