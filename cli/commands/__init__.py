"""The commands, a module each: options, and what is printed.

May import: emulate, page, run, service, shell; cloud, codec, edge, partition, proto.
"""
