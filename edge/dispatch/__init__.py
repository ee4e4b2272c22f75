"""Where the next frame is cut: the first plan, and its adaptation to link, worker and device.

May import: errors, link, store; codec, partition, proto.
"""
