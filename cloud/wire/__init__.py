"""The gRPC services: handshakes, streams, health, reflection.

May import: access, compute, engine, figures, frames; partition, proto.
"""
