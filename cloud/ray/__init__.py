"""The same worker as replicas of Ray Serve.

May import: access, compute, engine, errors, figures, frames, wire; partition, proto.
"""
