"""The cloud worker: queues, batching, torch, and the gRPC service."""
