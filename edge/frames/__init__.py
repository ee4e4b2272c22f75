"""One frame's way on the device: taken, computed, encoded, sent, answered or finished here.

May import: dispatch, errors, figures, given, link, result, store; codec, partition, proto.
"""
