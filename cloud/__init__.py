"""The cloud worker: queues, batching, torch, and the gRPC service.

May import: codec, partition, proto.
"""
