"""A device, a link and a worker under a virtual clock: what a trace would make of each way.

May import: dispatch, link; partition, proto.
"""
