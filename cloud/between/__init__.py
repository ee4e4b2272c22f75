"""What goes between the engine's process and ingest processes: messages, and shared memory.

May import: access, compute, figures, options, schedule, unexpected; codec, partition, proto.
"""
