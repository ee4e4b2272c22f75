"""The same worker as replicas of Ray Serve.

May import: access, backend, compute, engine, errors, options, wire; partition, proto.
"""
