"""An ingest process: calls, checks and decoding, with the engine in another process.

May import: access, between, compute, engine, figures, frames, schedule, unexpected, wire; codec,
proto.
"""
