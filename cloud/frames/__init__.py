"""One frame's way through the worker: taken in, decoded, handed to an engine, answered.

May import: access, compute, engine, figures, options, schedule, unexpected; codec, partition,
proto.
"""
