"""A link that is slower than it is: delay, rate and queue over loopback.

May import: codec, partition, proto.
"""
