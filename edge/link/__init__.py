"""The device's end of the wire: channels, connections and streams to one of several workers.

May import: errors, transport; codec, partition, proto.
"""
