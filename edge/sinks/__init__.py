"""Where results go.

May import: result.
"""
