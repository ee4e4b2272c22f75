"""The codecs' inner loops in C, where they were built; numpy's form of them serves elsewhere.

May import: nothing of ours.
"""

from .extension import EXTENSION, Extension, readable, why_not

__all__ = ["EXTENSION", "Extension", "readable", "why_not"]
