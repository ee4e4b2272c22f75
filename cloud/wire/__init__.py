"""The gRPC services: handshakes, streams, health, reflection.

May import: access, brief_log, compute, errors, frames; proto.
"""
