"""The gRPC services: handshakes, streams, health, reflection.

May import: access, compute, frames; proto.
"""
