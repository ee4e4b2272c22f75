"""Models on a device of the worker: loaded, timed for each batch size, and run.

May import: errors, schedule; codec, partition, proto.
"""
