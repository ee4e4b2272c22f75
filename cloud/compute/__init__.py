"""Models on a device of the worker: loaded, timed for each batch size, and run.

May import: errors, gpu, options, schedule; codec, partition, proto.
"""
