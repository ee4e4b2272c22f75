"""What the device keeps of the models: segments, tables and profiles, fetched when they are needed.

May import: errors, link; partition, proto.
"""
