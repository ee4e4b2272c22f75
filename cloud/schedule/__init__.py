"""Which batch runs next, who is in it, and who is turned away. No clock, no threads.

May import: proto.
"""
