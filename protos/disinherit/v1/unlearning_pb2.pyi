from disinherit.v1 import graph_pb2 as _graph_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FisherEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FISHER_ENCODING_UNSPECIFIED: _ClassVar[FisherEncoding]
    FISHER_ENCODING_BFLOAT16: _ClassVar[FisherEncoding]
    FISHER_ENCODING_LOG8: _ClassVar[FisherEncoding]

class Outcome(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    OUTCOME_UNSPECIFIED: _ClassVar[Outcome]
    OUTCOME_APPLIED: _ClassVar[Outcome]
    OUTCOME_ALREADY_APPLIED: _ClassVar[Outcome]
    OUTCOME_FAILED: _ClassVar[Outcome]
    OUTCOME_INEFFECTIVE: _ClassVar[Outcome]
    OUTCOME_NOT_REACHED: _ClassVar[Outcome]
    OUTCOME_HARMFUL: _ClassVar[Outcome]
FISHER_ENCODING_UNSPECIFIED: FisherEncoding
FISHER_ENCODING_BFLOAT16: FisherEncoding
FISHER_ENCODING_LOG8: FisherEncoding
OUTCOME_UNSPECIFIED: Outcome
OUTCOME_APPLIED: Outcome
OUTCOME_ALREADY_APPLIED: Outcome
OUTCOME_FAILED: Outcome
OUTCOME_INEFFECTIVE: Outcome
OUTCOME_NOT_REACHED: Outcome
OUTCOME_HARMFUL: Outcome

class Method(_message.Message):
    __slots__ = ("scope", "reference", "merge", "alpha", "lam", "gauge", "exponent", "bound", "row_scoped", "encoding", "repair_steps", "min_inheritance", "rescale")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_FIELD_NUMBER: _ClassVar[int]
    MERGE_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    LAM_FIELD_NUMBER: _ClassVar[int]
    GAUGE_FIELD_NUMBER: _ClassVar[int]
    EXPONENT_FIELD_NUMBER: _ClassVar[int]
    BOUND_FIELD_NUMBER: _ClassVar[int]
    ROW_SCOPED_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    REPAIR_STEPS_FIELD_NUMBER: _ClassVar[int]
    MIN_INHERITANCE_FIELD_NUMBER: _ClassVar[int]
    RESCALE_FIELD_NUMBER: _ClassVar[int]
    scope: str
    reference: str
    merge: str
    alpha: float
    lam: float
    gauge: float
    exponent: float
    bound: float
    row_scoped: bool
    encoding: FisherEncoding
    repair_steps: int
    min_inheritance: float
    rescale: bool
    def __init__(self, scope: _Optional[str] = ..., reference: _Optional[str] = ..., merge: _Optional[str] = ..., alpha: _Optional[float] = ..., lam: _Optional[float] = ..., gauge: _Optional[float] = ..., exponent: _Optional[float] = ..., bound: _Optional[float] = ..., row_scoped: _Optional[bool] = ..., encoding: _Optional[_Union[FisherEncoding, str]] = ..., repair_steps: _Optional[int] = ..., min_inheritance: _Optional[float] = ..., rescale: _Optional[bool] = ...) -> None: ...

class Root(_message.Message):
    __slots__ = ("model_id", "classes", "samples", "sample_salt", "ignore_unknown")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_SALT_FIELD_NUMBER: _ClassVar[int]
    IGNORE_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    classes: _containers.RepeatedScalarFieldContainer[str]
    samples: _containers.RepeatedScalarFieldContainer[str]
    sample_salt: str
    ignore_unknown: bool
    def __init__(self, model_id: _Optional[str] = ..., classes: _Optional[_Iterable[str]] = ..., samples: _Optional[_Iterable[str]] = ..., sample_salt: _Optional[str] = ..., ignore_unknown: _Optional[bool] = ...) -> None: ...

class UnlearningRequest(_message.Message):
    __slots__ = ("id", "reason", "roots", "method", "client", "roll_out", "retention_seconds")
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    ROLL_OUT_FIELD_NUMBER: _ClassVar[int]
    RETENTION_SECONDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    reason: str
    roots: _containers.RepeatedCompositeFieldContainer[Root]
    method: Method
    client: str
    roll_out: RollOut
    retention_seconds: int
    def __init__(self, id: _Optional[str] = ..., reason: _Optional[str] = ..., roots: _Optional[_Iterable[_Union[Root, _Mapping]]] = ..., method: _Optional[_Union[Method, _Mapping]] = ..., client: _Optional[str] = ..., roll_out: _Optional[_Union[RollOut, _Mapping]] = ..., retention_seconds: _Optional[int] = ...) -> None: ...

class RollOut(_message.Message):
    __slots__ = ("canaries", "canary_count", "waves", "min_success", "max_retain_drop", "max_error_rate")
    CANARIES_FIELD_NUMBER: _ClassVar[int]
    CANARY_COUNT_FIELD_NUMBER: _ClassVar[int]
    WAVES_FIELD_NUMBER: _ClassVar[int]
    MIN_SUCCESS_FIELD_NUMBER: _ClassVar[int]
    MAX_RETAIN_DROP_FIELD_NUMBER: _ClassVar[int]
    MAX_ERROR_RATE_FIELD_NUMBER: _ClassVar[int]
    canaries: _containers.RepeatedScalarFieldContainer[str]
    canary_count: int
    waves: _containers.RepeatedCompositeFieldContainer[Wave]
    min_success: float
    max_retain_drop: float
    max_error_rate: float
    def __init__(self, canaries: _Optional[_Iterable[str]] = ..., canary_count: _Optional[int] = ..., waves: _Optional[_Iterable[_Union[Wave, _Mapping]]] = ..., min_success: _Optional[float] = ..., max_retain_drop: _Optional[float] = ..., max_error_rate: _Optional[float] = ...) -> None: ...

class Wave(_message.Message):
    __slots__ = ("fraction", "count")
    FRACTION_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    fraction: float
    count: int
    def __init__(self, fraction: _Optional[float] = ..., count: _Optional[int] = ...) -> None: ...

class FisherPacket(_message.Message):
    __slots__ = ("tensors", "digest", "labels", "head_weight", "head_bias", "further_heads", "sources", "classes", "samples", "encoding", "clip_norm", "noise_multiplier", "clamped")
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    HEAD_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    HEAD_BIAS_FIELD_NUMBER: _ClassVar[int]
    FURTHER_HEADS_FIELD_NUMBER: _ClassVar[int]
    SOURCES_FIELD_NUMBER: _ClassVar[int]
    CLASSES_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    CLIP_NORM_FIELD_NUMBER: _ClassVar[int]
    NOISE_MULTIPLIER_FIELD_NUMBER: _ClassVar[int]
    CLAMPED_FIELD_NUMBER: _ClassVar[int]
    tensors: bytes
    digest: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    head_weight: str
    head_bias: str
    further_heads: _containers.RepeatedScalarFieldContainer[str]
    sources: _containers.RepeatedScalarFieldContainer[str]
    classes: _containers.RepeatedScalarFieldContainer[str]
    samples: int
    encoding: FisherEncoding
    clip_norm: float
    noise_multiplier: float
    clamped: int
    def __init__(self, tensors: _Optional[bytes] = ..., digest: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., head_weight: _Optional[str] = ..., head_bias: _Optional[str] = ..., further_heads: _Optional[_Iterable[str]] = ..., sources: _Optional[_Iterable[str]] = ..., classes: _Optional[_Iterable[str]] = ..., samples: _Optional[int] = ..., encoding: _Optional[_Union[FisherEncoding, str]] = ..., clip_norm: _Optional[float] = ..., noise_multiplier: _Optional[float] = ..., clamped: _Optional[int] = ...) -> None: ...

class Identity(_message.Message):
    __slots__ = ("owner",)
    OWNER_FIELD_NUMBER: _ClassVar[int]
    owner: str
    def __init__(self, owner: _Optional[str] = ...) -> None: ...

class LogHead(_message.Message):
    __slots__ = ("entries", "hash", "epoch", "key_id", "signature")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    HASH_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    entries: int
    hash: str
    epoch: int
    key_id: str
    signature: bytes
    def __init__(self, entries: _Optional[int] = ..., hash: _Optional[str] = ..., epoch: _Optional[int] = ..., key_id: _Optional[str] = ..., signature: _Optional[bytes] = ...) -> None: ...

class FisherTask(_message.Message):
    __slots__ = ("request_id", "roots", "method", "request_digest", "log_head", "enough_bytes", "most_bytes")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    LOG_HEAD_FIELD_NUMBER: _ClassVar[int]
    ENOUGH_BYTES_FIELD_NUMBER: _ClassVar[int]
    MOST_BYTES_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    roots: _containers.RepeatedCompositeFieldContainer[Root]
    method: Method
    request_digest: str
    log_head: LogHead
    enough_bytes: int
    most_bytes: int
    def __init__(self, request_id: _Optional[str] = ..., roots: _Optional[_Iterable[_Union[Root, _Mapping]]] = ..., method: _Optional[_Union[Method, _Mapping]] = ..., request_digest: _Optional[str] = ..., log_head: _Optional[_Union[LogHead, _Mapping]] = ..., enough_bytes: _Optional[int] = ..., most_bytes: _Optional[int] = ...) -> None: ...

class RootFisher(_message.Message):
    __slots__ = ("model_id", "packets", "seconds", "error", "withheld", "permanent")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    PACKETS_FIELD_NUMBER: _ClassVar[int]
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    WITHHELD_FIELD_NUMBER: _ClassVar[int]
    PERMANENT_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    packets: _containers.RepeatedCompositeFieldContainer[FisherPacket]
    seconds: float
    error: str
    withheld: bool
    permanent: bool
    def __init__(self, model_id: _Optional[str] = ..., packets: _Optional[_Iterable[_Union[FisherPacket, _Mapping]]] = ..., seconds: _Optional[float] = ..., error: _Optional[str] = ..., withheld: _Optional[bool] = ..., permanent: _Optional[bool] = ...) -> None: ...

class FisherReply(_message.Message):
    __slots__ = ("roots", "log_head", "more")
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    LOG_HEAD_FIELD_NUMBER: _ClassVar[int]
    MORE_FIELD_NUMBER: _ClassVar[int]
    roots: _containers.RepeatedCompositeFieldContainer[RootFisher]
    log_head: LogHead
    more: bool
    def __init__(self, roots: _Optional[_Iterable[_Union[RootFisher, _Mapping]]] = ..., log_head: _Optional[_Union[LogHead, _Mapping]] = ..., more: _Optional[bool] = ...) -> None: ...

class UnlearnTask(_message.Message):
    __slots__ = ("request_id", "method", "fishers", "models", "created_us", "measure_retain", "max_retain_drop", "request_digest", "roots", "log_head")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    METHOD_FIELD_NUMBER: _ClassVar[int]
    FISHERS_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    CREATED_US_FIELD_NUMBER: _ClassVar[int]
    MEASURE_RETAIN_FIELD_NUMBER: _ClassVar[int]
    MAX_RETAIN_DROP_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    ROOTS_FIELD_NUMBER: _ClassVar[int]
    LOG_HEAD_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    method: Method
    fishers: _containers.RepeatedCompositeFieldContainer[FisherPacket]
    models: _containers.RepeatedCompositeFieldContainer[ModelTask]
    created_us: int
    measure_retain: bool
    max_retain_drop: float
    request_digest: str
    roots: _containers.RepeatedCompositeFieldContainer[Root]
    log_head: LogHead
    def __init__(self, request_id: _Optional[str] = ..., method: _Optional[_Union[Method, _Mapping]] = ..., fishers: _Optional[_Iterable[_Union[FisherPacket, _Mapping]]] = ..., models: _Optional[_Iterable[_Union[ModelTask, _Mapping]]] = ..., created_us: _Optional[int] = ..., measure_retain: _Optional[bool] = ..., max_retain_drop: _Optional[float] = ..., request_digest: _Optional[str] = ..., roots: _Optional[_Iterable[_Union[Root, _Mapping]]] = ..., log_head: _Optional[_Union[LogHead, _Mapping]] = ...) -> None: ...

class ModelTask(_message.Message):
    __slots__ = ("model_id", "fisher", "digest", "samples", "sample_salt", "created_us", "alike", "ignore_unknown")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    FISHER_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_SALT_FIELD_NUMBER: _ClassVar[int]
    CREATED_US_FIELD_NUMBER: _ClassVar[int]
    ALIKE_FIELD_NUMBER: _ClassVar[int]
    IGNORE_UNKNOWN_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    fisher: int
    digest: str
    samples: _containers.RepeatedScalarFieldContainer[str]
    sample_salt: str
    created_us: int
    alike: int
    ignore_unknown: bool
    def __init__(self, model_id: _Optional[str] = ..., fisher: _Optional[int] = ..., digest: _Optional[str] = ..., samples: _Optional[_Iterable[str]] = ..., sample_salt: _Optional[str] = ..., created_us: _Optional[int] = ..., alike: _Optional[int] = ..., ignore_unknown: _Optional[bool] = ...) -> None: ...

class Selection(_message.Message):
    __slots__ = ("parameter", "rows", "total")
    PARAMETER_FIELD_NUMBER: _ClassVar[int]
    ROWS_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    parameter: str
    rows: _containers.RepeatedScalarFieldContainer[int]
    total: int
    def __init__(self, parameter: _Optional[str] = ..., rows: _Optional[_Iterable[int]] = ..., total: _Optional[int] = ...) -> None: ...

class ModelResult(_message.Message):
    __slots__ = ("model_id", "outcome", "successor", "alpha", "lam", "gauge", "tuned", "selections", "out_of_scope", "not_covered", "fisher_seconds", "tune_seconds", "apply_seconds", "error", "repair_steps", "inheritance", "scale", "retain_before", "retain_after", "forget", "retain_samples", "cleared_before", "request_digest", "unknown_samples")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    SUCCESSOR_FIELD_NUMBER: _ClassVar[int]
    ALPHA_FIELD_NUMBER: _ClassVar[int]
    LAM_FIELD_NUMBER: _ClassVar[int]
    GAUGE_FIELD_NUMBER: _ClassVar[int]
    TUNED_FIELD_NUMBER: _ClassVar[int]
    SELECTIONS_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_SCOPE_FIELD_NUMBER: _ClassVar[int]
    NOT_COVERED_FIELD_NUMBER: _ClassVar[int]
    FISHER_SECONDS_FIELD_NUMBER: _ClassVar[int]
    TUNE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    APPLY_SECONDS_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    REPAIR_STEPS_FIELD_NUMBER: _ClassVar[int]
    INHERITANCE_FIELD_NUMBER: _ClassVar[int]
    SCALE_FIELD_NUMBER: _ClassVar[int]
    RETAIN_BEFORE_FIELD_NUMBER: _ClassVar[int]
    RETAIN_AFTER_FIELD_NUMBER: _ClassVar[int]
    FORGET_FIELD_NUMBER: _ClassVar[int]
    RETAIN_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    CLEARED_BEFORE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    UNKNOWN_SAMPLES_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    outcome: Outcome
    successor: _graph_pb2.ModelRecord
    alpha: float
    lam: float
    gauge: float
    tuned: bool
    selections: _containers.RepeatedCompositeFieldContainer[Selection]
    out_of_scope: _containers.RepeatedScalarFieldContainer[str]
    not_covered: _containers.RepeatedScalarFieldContainer[str]
    fisher_seconds: float
    tune_seconds: float
    apply_seconds: float
    error: str
    repair_steps: int
    inheritance: float
    scale: float
    retain_before: float
    retain_after: float
    forget: Recognition
    retain_samples: int
    cleared_before: bool
    request_digest: str
    unknown_samples: int
    def __init__(self, model_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., successor: _Optional[_Union[_graph_pb2.ModelRecord, _Mapping]] = ..., alpha: _Optional[float] = ..., lam: _Optional[float] = ..., gauge: _Optional[float] = ..., tuned: _Optional[bool] = ..., selections: _Optional[_Iterable[_Union[Selection, _Mapping]]] = ..., out_of_scope: _Optional[_Iterable[str]] = ..., not_covered: _Optional[_Iterable[str]] = ..., fisher_seconds: _Optional[float] = ..., tune_seconds: _Optional[float] = ..., apply_seconds: _Optional[float] = ..., error: _Optional[str] = ..., repair_steps: _Optional[int] = ..., inheritance: _Optional[float] = ..., scale: _Optional[float] = ..., retain_before: _Optional[float] = ..., retain_after: _Optional[float] = ..., forget: _Optional[_Union[Recognition, _Mapping]] = ..., retain_samples: _Optional[int] = ..., cleared_before: _Optional[bool] = ..., request_digest: _Optional[str] = ..., unknown_samples: _Optional[int] = ...) -> None: ...

class Recognition(_message.Message):
    __slots__ = ("measure", "before", "after", "floor", "margin", "samples", "source", "loss_before", "loss_after")
    MEASURE_FIELD_NUMBER: _ClassVar[int]
    BEFORE_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    MARGIN_FIELD_NUMBER: _ClassVar[int]
    SAMPLES_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    LOSS_BEFORE_FIELD_NUMBER: _ClassVar[int]
    LOSS_AFTER_FIELD_NUMBER: _ClassVar[int]
    measure: str
    before: float
    after: float
    floor: float
    margin: float
    samples: int
    source: str
    loss_before: float
    loss_after: float
    def __init__(self, measure: _Optional[str] = ..., before: _Optional[float] = ..., after: _Optional[float] = ..., floor: _Optional[float] = ..., margin: _Optional[float] = ..., samples: _Optional[int] = ..., source: _Optional[str] = ..., loss_before: _Optional[float] = ..., loss_after: _Optional[float] = ...) -> None: ...

class UnlearnReply(_message.Message):
    __slots__ = ("models", "log_head")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LOG_HEAD_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelResult]
    log_head: LogHead
    def __init__(self, models: _Optional[_Iterable[_Union[ModelResult, _Mapping]]] = ..., log_head: _Optional[_Union[LogHead, _Mapping]] = ...) -> None: ...

class RollBackTask(_message.Message):
    __slots__ = ("request_id", "models", "request_digest")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    models: _containers.RepeatedCompositeFieldContainer[ModelRollBack]
    request_digest: str
    def __init__(self, request_id: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ModelRollBack, _Mapping]]] = ..., request_digest: _Optional[str] = ...) -> None: ...

class ModelRollBack(_message.Message):
    __slots__ = ("model_id", "digest")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    digest: str
    def __init__(self, model_id: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class RollBackResult(_message.Message):
    __slots__ = ("model_id", "outcome", "digest", "retired_id", "error")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    RETIRED_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    outcome: Outcome
    digest: str
    retired_id: str
    error: str
    def __init__(self, model_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., digest: _Optional[str] = ..., retired_id: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class RollBackReply(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[RollBackResult]
    def __init__(self, models: _Optional[_Iterable[_Union[RollBackResult, _Mapping]]] = ...) -> None: ...

class DestroyTask(_message.Message):
    __slots__ = ("request_id", "models", "request_digest")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_DIGEST_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    models: _containers.RepeatedCompositeFieldContainer[ModelDestruction]
    request_digest: str
    def __init__(self, request_id: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ModelDestruction, _Mapping]]] = ..., request_digest: _Optional[str] = ...) -> None: ...

class ModelDestruction(_message.Message):
    __slots__ = ("model_id", "digest")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    digest: str
    def __init__(self, model_id: _Optional[str] = ..., digest: _Optional[str] = ...) -> None: ...

class DestroyResult(_message.Message):
    __slots__ = ("model_id", "outcome", "digest", "held_by", "error")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    OUTCOME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    HELD_BY_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    outcome: Outcome
    digest: str
    held_by: str
    error: str
    def __init__(self, model_id: _Optional[str] = ..., outcome: _Optional[_Union[Outcome, str]] = ..., digest: _Optional[str] = ..., held_by: _Optional[str] = ..., error: _Optional[str] = ...) -> None: ...

class DestroyReply(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[DestroyResult]
    def __init__(self, models: _Optional[_Iterable[_Union[DestroyResult, _Mapping]]] = ...) -> None: ...

class NoticeTask(_message.Message):
    __slots__ = ("request_id", "models")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    models: _containers.RepeatedCompositeFieldContainer[ModelNotice]
    def __init__(self, request_id: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ModelNotice, _Mapping]]] = ...) -> None: ...

class ModelNotice(_message.Message):
    __slots__ = ("model_id", "state", "reason")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    state: str
    reason: str
    def __init__(self, model_id: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ...) -> None: ...

class NoticeReply(_message.Message):
    __slots__ = ("model_ids",)
    MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    model_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, model_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class RegisterTask(_message.Message):
    __slots__ = ("scope", "model_ids")
    SCOPE_FIELD_NUMBER: _ClassVar[int]
    MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    scope: str
    model_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, scope: _Optional[str] = ..., model_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class RegisterReply(_message.Message):
    __slots__ = ("owner", "models")
    OWNER_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    owner: str
    models: _containers.RepeatedCompositeFieldContainer[_graph_pb2.ModelRecord]
    def __init__(self, owner: _Optional[str] = ..., models: _Optional[_Iterable[_Union[_graph_pb2.ModelRecord, _Mapping]]] = ...) -> None: ...

class EvaluateTask(_message.Message):
    __slots__ = ("model_ids", "digests_only", "presence_only")
    MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    DIGESTS_ONLY_FIELD_NUMBER: _ClassVar[int]
    PRESENCE_ONLY_FIELD_NUMBER: _ClassVar[int]
    model_ids: _containers.RepeatedScalarFieldContainer[str]
    digests_only: bool
    presence_only: bool
    def __init__(self, model_ids: _Optional[_Iterable[str]] = ..., digests_only: _Optional[bool] = ..., presence_only: _Optional[bool] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("model_id", "digest", "labels", "confusion", "error", "missing")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    CONFUSION_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    digest: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    confusion: _containers.RepeatedScalarFieldContainer[int]
    error: str
    missing: bool
    def __init__(self, model_id: _Optional[str] = ..., digest: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., confusion: _Optional[_Iterable[int]] = ..., error: _Optional[str] = ..., missing: _Optional[bool] = ...) -> None: ...

class EvaluateReply(_message.Message):
    __slots__ = ("models",)
    MODELS_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[Evaluation]
    def __init__(self, models: _Optional[_Iterable[_Union[Evaluation, _Mapping]]] = ...) -> None: ...
