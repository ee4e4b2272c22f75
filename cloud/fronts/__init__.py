"""What lets clients in: the service of this process, or ingest processes beside the engine's.

May import: access, backend, between, brief_log, compute, engine, errors, figures, frames, options,
unexpected, wire; codec, proto.
"""
