"""The planner: what each split costs under a link, and which of them is best.

May import: bundle, energy, errors, profile; codec.
"""
