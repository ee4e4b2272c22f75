from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Status(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    STATUS_UNSPECIFIED: _ClassVar[Status]
    OK: _ClassVar[Status]
    MALFORMED: _ClassVar[Status]
    CORRUPT: _ClassVar[Status]
    OUT_OF_RANGE: _ClassVar[Status]
    MISMATCH: _ClassVar[Status]
    TOO_LARGE: _ClassVar[Status]
    UNKNOWN_CODEC: _ClassVar[Status]
    UNDECODABLE: _ClassVar[Status]
    EXPIRED: _ClassVar[Status]
    OVERLOADED: _ClassVar[Status]
    CANCELLED: _ClassVar[Status]
    STOPPING: _ClassVar[Status]
    INTERNAL: _ClassVar[Status]
    KEY_FRAME: _ClassVar[Status]
STATUS_UNSPECIFIED: Status
OK: Status
MALFORMED: Status
CORRUPT: Status
OUT_OF_RANGE: Status
MISMATCH: Status
TOO_LARGE: Status
UNKNOWN_CODEC: Status
UNDECODABLE: Status
EXPIRED: Status
OVERLOADED: Status
CANCELLED: Status
STOPPING: Status
INTERNAL: Status
KEY_FRAME: Status

class DescribeRequest(_message.Message):
    __slots__ = ("protocol",)
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    def __init__(self, protocol: _Optional[int] = ...) -> None: ...

class DescribeReply(_message.Message):
    __slots__ = ("protocol", "server", "models", "load")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    SERVER_FIELD_NUMBER: _ClassVar[int]
    MODELS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    server: str
    models: _containers.RepeatedCompositeFieldContainer[ModelInfo]
    load: Load
    def __init__(self, protocol: _Optional[int] = ..., server: _Optional[str] = ..., models: _Optional[_Iterable[_Union[ModelInfo, _Mapping]]] = ..., load: _Optional[_Union[Load, _Mapping]] = ...) -> None: ...

class ModelInfo(_message.Message):
    __slots__ = ("name", "digest", "manifest_bytes", "segment_ms", "device", "segment_p95_ms", "decode", "load")
    NAME_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    MANIFEST_BYTES_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_MS_FIELD_NUMBER: _ClassVar[int]
    DEVICE_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_P95_MS_FIELD_NUMBER: _ClassVar[int]
    DECODE_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    name: str
    digest: str
    manifest_bytes: int
    segment_ms: _containers.RepeatedScalarFieldContainer[float]
    device: str
    segment_p95_ms: _containers.RepeatedScalarFieldContainer[float]
    decode: _containers.RepeatedCompositeFieldContainer[DecodeTime]
    load: Load
    def __init__(self, name: _Optional[str] = ..., digest: _Optional[str] = ..., manifest_bytes: _Optional[int] = ..., segment_ms: _Optional[_Iterable[float]] = ..., device: _Optional[str] = ..., segment_p95_ms: _Optional[_Iterable[float]] = ..., decode: _Optional[_Iterable[_Union[DecodeTime, _Mapping]]] = ..., load: _Optional[_Union[Load, _Mapping]] = ...) -> None: ...

class DecodeTime(_message.Message):
    __slots__ = ("boundary", "codec", "ms")
    BOUNDARY_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    MS_FIELD_NUMBER: _ClassVar[int]
    boundary: int
    codec: str
    ms: float
    def __init__(self, boundary: _Optional[int] = ..., codec: _Optional[str] = ..., ms: _Optional[float] = ...) -> None: ...

class FetchRequest(_message.Message):
    __slots__ = ("digest", "sha256", "offset")
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    digest: str
    sha256: str
    offset: int
    def __init__(self, digest: _Optional[str] = ..., sha256: _Optional[str] = ..., offset: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("offset", "total", "data")
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    offset: int
    total: int
    data: bytes
    def __init__(self, offset: _Optional[int] = ..., total: _Optional[int] = ..., data: _Optional[bytes] = ...) -> None: ...

class ClientMessage(_message.Message):
    __slots__ = ("hello", "frame", "cancel", "probe")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    FRAME_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    frame: Frame
    cancel: Cancel
    probe: Probe
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., frame: _Optional[_Union[Frame, _Mapping]] = ..., cancel: _Optional[_Union[Cancel, _Mapping]] = ..., probe: _Optional[_Union[Probe, _Mapping]] = ...) -> None: ...

class ServerMessage(_message.Message):
    __slots__ = ("welcome", "reply", "probe", "draining")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    REPLY_FIELD_NUMBER: _ClassVar[int]
    PROBE_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    reply: Reply
    probe: ProbeReply
    draining: Draining
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., reply: _Optional[_Union[Reply, _Mapping]] = ..., probe: _Optional[_Union[ProbeReply, _Mapping]] = ..., draining: _Optional[_Union[Draining, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("protocol", "model", "digest", "client")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    model: str
    digest: str
    client: str
    def __init__(self, protocol: _Optional[int] = ..., model: _Optional[str] = ..., digest: _Optional[str] = ..., client: _Optional[str] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("protocol", "credits", "max_batch", "max_frame_bytes", "segment_ms", "load")
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    CREDITS_FIELD_NUMBER: _ClassVar[int]
    MAX_BATCH_FIELD_NUMBER: _ClassVar[int]
    MAX_FRAME_BYTES_FIELD_NUMBER: _ClassVar[int]
    SEGMENT_MS_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    protocol: int
    credits: int
    max_batch: int
    max_frame_bytes: int
    segment_ms: _containers.RepeatedScalarFieldContainer[float]
    load: Load
    def __init__(self, protocol: _Optional[int] = ..., credits: _Optional[int] = ..., max_batch: _Optional[int] = ..., max_frame_bytes: _Optional[int] = ..., segment_ms: _Optional[_Iterable[float]] = ..., load: _Optional[_Union[Load, _Mapping]] = ...) -> None: ...

class Tensor(_message.Message):
    __slots__ = ("dtype", "shape", "payload")
    DTYPE_FIELD_NUMBER: _ClassVar[int]
    SHAPE_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    dtype: int
    shape: _containers.RepeatedScalarFieldContainer[int]
    payload: bytes
    def __init__(self, dtype: _Optional[int] = ..., shape: _Optional[_Iterable[int]] = ..., payload: _Optional[bytes] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("id", "boundary", "codec", "tensors", "budget_ms", "crc32", "traceparent")
    ID_FIELD_NUMBER: _ClassVar[int]
    BOUNDARY_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    TENSORS_FIELD_NUMBER: _ClassVar[int]
    BUDGET_MS_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    id: int
    boundary: int
    codec: str
    tensors: _containers.RepeatedCompositeFieldContainer[Tensor]
    budget_ms: int
    crc32: int
    traceparent: str
    def __init__(self, id: _Optional[int] = ..., boundary: _Optional[int] = ..., codec: _Optional[str] = ..., tensors: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., budget_ms: _Optional[int] = ..., crc32: _Optional[int] = ..., traceparent: _Optional[str] = ...) -> None: ...

class Cancel(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class Probe(_message.Message):
    __slots__ = ("id", "padding")
    ID_FIELD_NUMBER: _ClassVar[int]
    PADDING_FIELD_NUMBER: _ClassVar[int]
    id: int
    padding: bytes
    def __init__(self, id: _Optional[int] = ..., padding: _Optional[bytes] = ...) -> None: ...

class ProbeReply(_message.Message):
    __slots__ = ("id", "load")
    ID_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    id: int
    load: Load
    def __init__(self, id: _Optional[int] = ..., load: _Optional[_Union[Load, _Mapping]] = ...) -> None: ...

class Draining(_message.Message):
    __slots__ = ("grace_ms", "reopen")
    GRACE_MS_FIELD_NUMBER: _ClassVar[int]
    REOPEN_FIELD_NUMBER: _ClassVar[int]
    grace_ms: int
    reopen: bool
    def __init__(self, grace_ms: _Optional[int] = ..., reopen: _Optional[bool] = ...) -> None: ...

class Load(_message.Message):
    __slots__ = ("queued", "queue_ms", "utilisation", "slowdown", "wait_ms")
    QUEUED_FIELD_NUMBER: _ClassVar[int]
    QUEUE_MS_FIELD_NUMBER: _ClassVar[int]
    UTILISATION_FIELD_NUMBER: _ClassVar[int]
    SLOWDOWN_FIELD_NUMBER: _ClassVar[int]
    WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    queued: int
    queue_ms: float
    utilisation: float
    slowdown: float
    wait_ms: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, queued: _Optional[int] = ..., queue_ms: _Optional[float] = ..., utilisation: _Optional[float] = ..., slowdown: _Optional[float] = ..., wait_ms: _Optional[_Iterable[float]] = ...) -> None: ...

class Times(_message.Message):
    __slots__ = ("queue_us", "decode_us", "compute_us", "total_us", "batch")
    QUEUE_US_FIELD_NUMBER: _ClassVar[int]
    DECODE_US_FIELD_NUMBER: _ClassVar[int]
    COMPUTE_US_FIELD_NUMBER: _ClassVar[int]
    TOTAL_US_FIELD_NUMBER: _ClassVar[int]
    BATCH_FIELD_NUMBER: _ClassVar[int]
    queue_us: int
    decode_us: int
    compute_us: int
    total_us: int
    batch: int
    def __init__(self, queue_us: _Optional[int] = ..., decode_us: _Optional[int] = ..., compute_us: _Optional[int] = ..., total_us: _Optional[int] = ..., batch: _Optional[int] = ...) -> None: ...

class Reply(_message.Message):
    __slots__ = ("id", "message_index", "status", "reason", "outputs", "times", "load", "crc32")
    ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_INDEX_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    OUTPUTS_FIELD_NUMBER: _ClassVar[int]
    TIMES_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    CRC32_FIELD_NUMBER: _ClassVar[int]
    id: int
    message_index: int
    status: Status
    reason: str
    outputs: _containers.RepeatedCompositeFieldContainer[Tensor]
    times: Times
    load: Load
    crc32: int
    def __init__(self, id: _Optional[int] = ..., message_index: _Optional[int] = ..., status: _Optional[_Union[Status, str]] = ..., reason: _Optional[str] = ..., outputs: _Optional[_Iterable[_Union[Tensor, _Mapping]]] = ..., times: _Optional[_Union[Times, _Mapping]] = ..., load: _Optional[_Union[Load, _Mapping]] = ..., crc32: _Optional[int] = ...) -> None: ...
