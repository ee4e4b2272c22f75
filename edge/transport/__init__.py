"""How calls get to a worker: over gRPC, or in memory to one that a test has made.

May import: errors; codec, partition, proto.
"""
