"""The `splitpoint` command, its reports and the link emulator.

May import: codec, partition, proto, edge, cloud.
"""
