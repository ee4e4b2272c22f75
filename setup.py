"""The one part that is not Python: the codecs' inner loops. All else stands in pyproject.toml.

The extension is optional: without a C compiler the installation goes on, and numpy's form serves.
"""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel

# Buffers are in the stable ABI from Python 3.11 on; 3.10 has a wheel of its own.
STABLE = sys.version_info >= (3, 11)
FOLDER = Path("codec/native")


class StableWheel(bdist_wheel):
    """A wheel for this Python's stable ABI, if the extension is for that."""

    def finalize_options(self) -> None:
        """Sets the tag."""
        if STABLE:
            self.py_limited_api = "cp311"
        super().finalize_options()


setup(
    cmdclass={"bdist_wheel": StableWheel},
    ext_modules=[
        Extension(
            "splitpoint.codec.native._loops",
            sources=sorted(str(path) for path in FOLDER.glob("*.c")),
            depends=sorted(str(path) for path in FOLDER.glob("*.h")),
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if STABLE else [],
            extra_compile_args=["-O3", "-std=c11", "-ffp-contract=off", "-fvisibility=hidden"],
            libraries=["m"],
            py_limited_api=STABLE,
            optional=True,
        )
    ],
)
