"""One frame's way on the device: taken, computed, encoded, sent, answered or finished here.

May import: dispatch, errors, given, link, result, store; codec, partition, proto.
"""
