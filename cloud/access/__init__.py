"""Who may ask for what, and how much of it: tokens, certificates, quotas, refusals.

May import: errors; codec, proto.
"""
