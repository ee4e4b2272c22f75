"""From a torch model to a bundle and a plan: capture, cuts, segments, profiles, the planner.

May import: codec.
"""
