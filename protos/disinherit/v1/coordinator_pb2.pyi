from disinherit.v1 import graph_pb2 as _graph_pb2
from disinherit.v1 import unlearning_pb2 as _unlearning_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class CampaignState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    CAMPAIGN_STATE_UNSPECIFIED: _ClassVar[CampaignState]
    CAMPAIGN_STATE_AWAITING_APPROVAL: _ClassVar[CampaignState]
    CAMPAIGN_STATE_RUNNING: _ClassVar[CampaignState]
    CAMPAIGN_STATE_PAUSED: _ClassVar[CampaignState]
    CAMPAIGN_STATE_COMPLETE: _ClassVar[CampaignState]
    CAMPAIGN_STATE_PARTIAL: _ClassVar[CampaignState]
    CAMPAIGN_STATE_ABORTED: _ClassVar[CampaignState]
    CAMPAIGN_STATE_ROLLING_BACK: _ClassVar[CampaignState]
    CAMPAIGN_STATE_ROLLED_BACK: _ClassVar[CampaignState]
    CAMPAIGN_STATE_HALTED: _ClassVar[CampaignState]
CAMPAIGN_STATE_UNSPECIFIED: CampaignState
CAMPAIGN_STATE_AWAITING_APPROVAL: CampaignState
CAMPAIGN_STATE_RUNNING: CampaignState
CAMPAIGN_STATE_PAUSED: CampaignState
CAMPAIGN_STATE_COMPLETE: CampaignState
CAMPAIGN_STATE_PARTIAL: CampaignState
CAMPAIGN_STATE_ABORTED: CampaignState
CAMPAIGN_STATE_ROLLING_BACK: CampaignState
CAMPAIGN_STATE_ROLLED_BACK: CampaignState
CAMPAIGN_STATE_HALTED: CampaignState

class RegisterModelRequest(_message.Message):
    __slots__ = ("record", "parents")
    RECORD_FIELD_NUMBER: _ClassVar[int]
    PARENTS_FIELD_NUMBER: _ClassVar[int]
    record: _graph_pb2.ModelRecord
    parents: _containers.RepeatedCompositeFieldContainer[_graph_pb2.Inheritance]
    def __init__(self, record: _Optional[_Union[_graph_pb2.ModelRecord, _Mapping]] = ..., parents: _Optional[_Iterable[_Union[_graph_pb2.Inheritance, _Mapping]]] = ...) -> None: ...

class RegisterModelResponse(_message.Message):
    __slots__ = ("record",)
    RECORD_FIELD_NUMBER: _ClassVar[int]
    record: _graph_pb2.ModelRecord
    def __init__(self, record: _Optional[_Union[_graph_pb2.ModelRecord, _Mapping]] = ...) -> None: ...

class WithdrawModelRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class WithdrawModelResponse(_message.Message):
    __slots__ = ("record",)
    RECORD_FIELD_NUMBER: _ClassVar[int]
    record: _graph_pb2.ModelRecord
    def __init__(self, record: _Optional[_Union[_graph_pb2.ModelRecord, _Mapping]] = ...) -> None: ...

class ListModelsRequest(_message.Message):
    __slots__ = ("owner", "page_size", "page_token")
    OWNER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    owner: str
    page_size: int
    page_token: str
    def __init__(self, owner: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListModelsResponse(_message.Message):
    __slots__ = ("models", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[_graph_pb2.ModelRecord]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[_graph_pb2.ModelRecord, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetGraphRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SubmitRequestRequest(_message.Message):
    __slots__ = ("request", "deadline_seconds")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    request: _unlearning_pb2.UnlearningRequest
    deadline_seconds: int
    def __init__(self, request: _Optional[_Union[_unlearning_pb2.UnlearningRequest, _Mapping]] = ..., deadline_seconds: _Optional[int] = ...) -> None: ...

class ControlRequest(_message.Message):
    __slots__ = ("id", "plan_sha256")
    ID_FIELD_NUMBER: _ClassVar[int]
    PLAN_SHA256_FIELD_NUMBER: _ClassVar[int]
    id: str
    plan_sha256: str
    def __init__(self, id: _Optional[str] = ..., plan_sha256: _Optional[str] = ...) -> None: ...

class ResumeRequestRequest(_message.Message):
    __slots__ = ("id", "deadline_seconds")
    ID_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_SECONDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    deadline_seconds: int
    def __init__(self, id: _Optional[str] = ..., deadline_seconds: _Optional[int] = ...) -> None: ...

class RollBackRequestRequest(_message.Message):
    __slots__ = ("id", "reason", "model_ids")
    ID_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    id: str
    reason: str
    model_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, id: _Optional[str] = ..., reason: _Optional[str] = ..., model_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetRequestRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class ListRequestsRequest(_message.Message):
    __slots__ = ("page_size", "page_token")
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    page_size: int
    page_token: str
    def __init__(self, page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListRequestsResponse(_message.Message):
    __slots__ = ("requests", "next_page_token")
    REQUESTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    requests: _containers.RepeatedCompositeFieldContainer[RequestStatus]
    next_page_token: str
    def __init__(self, requests: _Optional[_Iterable[_Union[RequestStatus, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class RequestStatus(_message.Message):
    __slots__ = ("request", "state", "tasks", "created_us", "updated_us", "deadline_us", "reason", "waves", "waves_begun", "sample_counts", "plan_sha256", "approved_plan_sha256")
    class TasksEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    TASKS_FIELD_NUMBER: _ClassVar[int]
    CREATED_US_FIELD_NUMBER: _ClassVar[int]
    UPDATED_US_FIELD_NUMBER: _ClassVar[int]
    DEADLINE_US_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    WAVES_FIELD_NUMBER: _ClassVar[int]
    WAVES_BEGUN_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_COUNTS_FIELD_NUMBER: _ClassVar[int]
    PLAN_SHA256_FIELD_NUMBER: _ClassVar[int]
    APPROVED_PLAN_SHA256_FIELD_NUMBER: _ClassVar[int]
    request: _unlearning_pb2.UnlearningRequest
    state: CampaignState
    tasks: _containers.ScalarMap[str, int]
    created_us: int
    updated_us: int
    deadline_us: int
    reason: str
    waves: int
    waves_begun: int
    sample_counts: _containers.RepeatedScalarFieldContainer[int]
    plan_sha256: str
    approved_plan_sha256: str
    def __init__(self, request: _Optional[_Union[_unlearning_pb2.UnlearningRequest, _Mapping]] = ..., state: _Optional[_Union[CampaignState, str]] = ..., tasks: _Optional[_Mapping[str, int]] = ..., created_us: _Optional[int] = ..., updated_us: _Optional[int] = ..., deadline_us: _Optional[int] = ..., reason: _Optional[str] = ..., waves: _Optional[int] = ..., waves_begun: _Optional[int] = ..., sample_counts: _Optional[_Iterable[int]] = ..., plan_sha256: _Optional[str] = ..., approved_plan_sha256: _Optional[str] = ...) -> None: ...

class GetCoverageRequest(_message.Message):
    __slots__ = ("id", "page_size", "page_token")
    ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    id: str
    page_size: int
    page_token: str
    def __init__(self, id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ModelCoverage(_message.Message):
    __slots__ = ("model_id", "owner", "state", "reason", "successor_id", "digest_before", "digest_after", "updated_us", "wave", "destroy_us", "destroyed_us")
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    OWNER_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    SUCCESSOR_ID_FIELD_NUMBER: _ClassVar[int]
    DIGEST_BEFORE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_AFTER_FIELD_NUMBER: _ClassVar[int]
    UPDATED_US_FIELD_NUMBER: _ClassVar[int]
    WAVE_FIELD_NUMBER: _ClassVar[int]
    DESTROY_US_FIELD_NUMBER: _ClassVar[int]
    DESTROYED_US_FIELD_NUMBER: _ClassVar[int]
    model_id: str
    owner: str
    state: str
    reason: str
    successor_id: str
    digest_before: str
    digest_after: str
    updated_us: int
    wave: int
    destroy_us: int
    destroyed_us: int
    def __init__(self, model_id: _Optional[str] = ..., owner: _Optional[str] = ..., state: _Optional[str] = ..., reason: _Optional[str] = ..., successor_id: _Optional[str] = ..., digest_before: _Optional[str] = ..., digest_after: _Optional[str] = ..., updated_us: _Optional[int] = ..., wave: _Optional[int] = ..., destroy_us: _Optional[int] = ..., destroyed_us: _Optional[int] = ...) -> None: ...

class GetCoverageResponse(_message.Message):
    __slots__ = ("models", "next_page_token")
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    models: _containers.RepeatedCompositeFieldContainer[ModelCoverage]
    next_page_token: str
    def __init__(self, models: _Optional[_Iterable[_Union[ModelCoverage, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetReportRequest(_message.Message):
    __slots__ = ("id", "page_size", "page_token")
    ID_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    id: str
    page_size: int
    page_token: str
    def __init__(self, id: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ModelReport(_message.Message):
    __slots__ = ("coverage", "result", "fishers", "notified_us")
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    RESULT_FIELD_NUMBER: _ClassVar[int]
    FISHERS_FIELD_NUMBER: _ClassVar[int]
    NOTIFIED_US_FIELD_NUMBER: _ClassVar[int]
    coverage: ModelCoverage
    result: _unlearning_pb2.ModelResult
    fishers: _containers.RepeatedScalarFieldContainer[str]
    notified_us: int
    def __init__(self, coverage: _Optional[_Union[ModelCoverage, _Mapping]] = ..., result: _Optional[_Union[_unlearning_pb2.ModelResult, _Mapping]] = ..., fishers: _Optional[_Iterable[str]] = ..., notified_us: _Optional[int] = ...) -> None: ...

class Gap(_message.Message):
    __slots__ = ("kind", "model_ids", "text")
    KIND_FIELD_NUMBER: _ClassVar[int]
    MODEL_IDS_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    kind: str
    model_ids: _containers.RepeatedScalarFieldContainer[str]
    text: str
    def __init__(self, kind: _Optional[str] = ..., model_ids: _Optional[_Iterable[str]] = ..., text: _Optional[str] = ...) -> None: ...

class ReportSummary(_message.Message):
    __slots__ = ("status", "request_sha256", "graph_sha256", "models", "edges", "coverage", "times_us", "gaps", "audit_entries", "audit_head")
    class CoverageEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    class TimesUsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: int
        def __init__(self, key: _Optional[str] = ..., value: _Optional[int] = ...) -> None: ...
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REQUEST_SHA256_FIELD_NUMBER: _ClassVar[int]
    GRAPH_SHA256_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    EDGES_FIELD_NUMBER: _ClassVar[int]
    COVERAGE_FIELD_NUMBER: _ClassVar[int]
    TIMES_US_FIELD_NUMBER: _ClassVar[int]
    GAPS_FIELD_NUMBER: _ClassVar[int]
    AUDIT_ENTRIES_FIELD_NUMBER: _ClassVar[int]
    AUDIT_HEAD_FIELD_NUMBER: _ClassVar[int]
    status: RequestStatus
    request_sha256: str
    graph_sha256: str
    models: int
    edges: int
    coverage: _containers.ScalarMap[str, int]
    times_us: _containers.ScalarMap[str, int]
    gaps: _containers.RepeatedCompositeFieldContainer[Gap]
    audit_entries: int
    audit_head: str
    def __init__(self, status: _Optional[_Union[RequestStatus, _Mapping]] = ..., request_sha256: _Optional[str] = ..., graph_sha256: _Optional[str] = ..., models: _Optional[int] = ..., edges: _Optional[int] = ..., coverage: _Optional[_Mapping[str, int]] = ..., times_us: _Optional[_Mapping[str, int]] = ..., gaps: _Optional[_Iterable[_Union[Gap, _Mapping]]] = ..., audit_entries: _Optional[int] = ..., audit_head: _Optional[str] = ...) -> None: ...

class GetReportResponse(_message.Message):
    __slots__ = ("summary", "models", "next_page_token")
    SUMMARY_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    summary: ReportSummary
    models: _containers.RepeatedCompositeFieldContainer[ModelReport]
    next_page_token: str
    def __init__(self, summary: _Optional[_Union[ReportSummary, _Mapping]] = ..., models: _Optional[_Iterable[_Union[ModelReport, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class GetAttestationRequest(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: str
    def __init__(self, id: _Optional[str] = ...) -> None: ...

class AttestationPart(_message.Message):
    __slots__ = ("data",)
    DATA_FIELD_NUMBER: _ClassVar[int]
    data: bytes
    def __init__(self, data: _Optional[bytes] = ...) -> None: ...

class ExportAuditRequest(_message.Message):
    __slots__ = ("request_id",)
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    def __init__(self, request_id: _Optional[str] = ...) -> None: ...

class AuditLine(_message.Message):
    __slots__ = ("line",)
    LINE_FIELD_NUMBER: _ClassVar[int]
    line: bytes
    def __init__(self, line: _Optional[bytes] = ...) -> None: ...

class GetSigningKeysRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class SigningKey(_message.Message):
    __slots__ = ("key_id", "public_pem", "since_us", "until_us", "revoked_us")
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    PUBLIC_PEM_FIELD_NUMBER: _ClassVar[int]
    SINCE_US_FIELD_NUMBER: _ClassVar[int]
    UNTIL_US_FIELD_NUMBER: _ClassVar[int]
    REVOKED_US_FIELD_NUMBER: _ClassVar[int]
    key_id: str
    public_pem: bytes
    since_us: int
    until_us: int
    revoked_us: int
    def __init__(self, key_id: _Optional[str] = ..., public_pem: _Optional[bytes] = ..., since_us: _Optional[int] = ..., until_us: _Optional[int] = ..., revoked_us: _Optional[int] = ...) -> None: ...

class GetSigningKeysResponse(_message.Message):
    __slots__ = ("keys",)
    KEYS_FIELD_NUMBER: _ClassVar[int]
    keys: _containers.RepeatedCompositeFieldContainer[SigningKey]
    def __init__(self, keys: _Optional[_Iterable[_Union[SigningKey, _Mapping]]] = ...) -> None: ...
