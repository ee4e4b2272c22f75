"""Where results go.

May import: errors, meaning, result, sources, transport; codec, partition, proto.
"""
