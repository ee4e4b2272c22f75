"""The compute thread of each device, what it is given, and what happens when that fails.

May import: brief_log, compute, errors, gpu, schedule; codec, partition, proto.
"""
