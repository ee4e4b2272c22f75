"""Models on a device of the worker: loaded, timed for each batch size, and run.

May import: errors, options, schedule; codec, partition, proto.
"""
