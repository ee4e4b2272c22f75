"""Numbers that both ends of the wire agree on, and gRPC's options that follow from them."""

from __future__ import annotations

from collections.abc import Sequence

from splitpoint.codec import CODECS, TensorSpec
from splitpoint.codec.fkt.codec import MIN_SAMPLE_BYTES

PROTOCOL = 1
SERVICE = "splitpoint.v1.Split"
CHUNK_BYTES = 512 << 10
MAX_CREDITS = 4
MAX_BATCH_PER_FRAME = 16
DESCRIBE_BYTES = 4 << 20
# Field tags, ids, names and times around a message, and tags and shape around each tensor.
ENVELOPE_BYTES, TENSOR_ENVELOPE_BYTES = 4096, 128
# gRPC's own ceiling is a signed 32-bit length.
MESSAGE_CEILING_BYTES = (1 << 31) - 1

# A client's token travels in a call's metadata, as in HTTP (RFC 6750).
TOKEN_KEY, TOKEN_SCHEME = "authorization", "Bearer"

RECONNECT_MS, CONNECT_MS = 100, 2_000  # the first pause, and the time for a connection
# A worker's pings to those that are silent. A device's are of another kind: by default a server, or
# a proxy in between, hangs up on a client that pings it more often than every five minutes while
# nothing is sent (grpc.http2.min_ping_interval_without_data_ms). So a device asks by a message of
# its stream whether the worker is there, and pings seldom.
KEEPALIVE_MS, KEEPALIVE_TIMEOUT_MS = 10_000, 5_000
CLIENT_KEEPALIVE_MS, CLIENT_KEEPALIVE_TIMEOUT_MS = 360_000, 20_000
MORE_CALLS = 64  # of a connection, besides streams: for what is served, files, and its health
HANDSHAKE_MS = 20_000  # of TLS; gRPC itself waits two minutes


def max_frame_bytes(boundaries: Sequence[Sequence[TensorSpec]], batch: int) -> int:
    """The largest message that a legitimate frame or reply of this model can be."""
    largest = max(
        sum(
            max(
                batch * MIN_SAMPLE_BYTES,
                *(
                    codec.max_payload_bytes(spec, batch)
                    for codec in CODECS.values()
                    if codec.supports(spec)
                ),
            )
            + TENSOR_ENVELOPE_BYTES
            for spec in tensors
        )
        for tensors in boundaries
    )
    return min(largest + ENVELOPE_BYTES, MESSAGE_CEILING_BYTES)


def channel_options(max_message_bytes: int) -> list[tuple[str, int]]:
    """Options of a client's channel; longer answers end the whole stream, so the limit is exact."""
    return [
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
        ("grpc.keepalive_time_ms", CLIENT_KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", CLIENT_KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 0),
        # A device goes on by itself meanwhile; gRPC's own pauses, of up to two minutes, would keep
        # it from a worker that is back, and its 20 s for a connection from one that moved.
        ("grpc.initial_reconnect_backoff_ms", RECONNECT_MS),
        ("grpc.max_reconnect_backoff_ms", 4 * RECONNECT_MS),
        ("grpc.min_reconnect_backoff_ms", CONNECT_MS),
        # One connection a worker: streams of one process do not share a socket by accident.
        ("grpc.use_local_subchannel_pool", 1),
    ]


def server_options(
    max_message_bytes: int, streams: int, *, shares_port: bool = False
) -> list[tuple[str, int]]:
    """Options of a worker's server; each connection may carry `streams`, and some calls more.

    Processes of one worker share a port.
    """
    return [
        # Beyond these a client waits, and gRPC sends away one that does not.
        ("grpc.max_concurrent_streams", streams + MORE_CALLS),
        ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
        ("grpc.max_receive_message_length", max_message_bytes),
        # Nobody compresses messages here: a few bytes would become as many as a message may have.
        ("grpc.compression_enabled_algorithms_bitset", 1),
        # Its models and the pieces of their files may be larger than any frame of a small model.
        ("grpc.max_send_message_length", max(max_message_bytes, DESCRIBE_BYTES)),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.keepalive_permit_without_calls", 1),
        # Devices of earlier releases ping as often.
        ("grpc.http2.min_ping_interval_without_data_ms", KEEPALIVE_MS // 2),
        ("grpc.http2.max_ping_strikes", 0),
        # A second worker on the same port would silently share its connections.
        ("grpc.so_reuseport", int(shares_port)),
    ]
