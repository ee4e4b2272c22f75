"""Which way a frame takes: the first plan, and then each frame's own by link, worker and device.

May import: errors, link, store; codec, partition, proto.
"""
