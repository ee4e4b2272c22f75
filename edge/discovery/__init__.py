"""Workers that announce themselves in the local network: heard, checked, chosen, added later.

May import: errors; proto.
"""
