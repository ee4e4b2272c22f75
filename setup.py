"""The one part that is not Python: the codecs' inner loops. All else stands in pyproject.toml.

The extension is optional: without a C compiler the installation goes on, and numpy's form serves.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError, CompileError

# Buffers are in the stable ABI from Python 3.11 on; 3.10 has a wheel of its own, and so has a
# Python without the GIL, which has no stable ABI.
STABLE = sys.version_info >= (3, 11) and not sysconfig.get_config_var("Py_GIL_DISABLED")
FOLDER = Path("codec/native")
FLAGS = ["-O3", "-g0", "-std=c11", "-ffp-contract=off", "-fvisibility=hidden", "-Wall", "-Wextra"]


class BuildOrSayWhy(build_ext):
    """Says in one line what it means that the extension was not built."""

    def build_extension(self, ext: Extension) -> None:
        """Compiles and links it. As it is optional, an error is shown and the build goes on."""
        try:
            super().build_extension(ext)
        except (BaseError, CCompilerError, CompileError) as error:
            # What an earlier build left there would be packed, whatever its sources were.
            Path(self.get_ext_fullpath(ext.name)).unlink(missing_ok=True)
            raise CompileError(
                f"{error}; splitpoint works without it, and its codecs take several times as long: "
                "install a C compiler and Python's headers, and then splitpoint again"
            ) from error


class StableWheel(bdist_wheel):
    """A wheel for this Python's stable ABI, if the extension is for that."""

    def finalize_options(self) -> None:
        """Sets the tag."""
        if STABLE:
            self.py_limited_api = "cp311"
        super().finalize_options()


setup(
    cmdclass={"build_ext": BuildOrSayWhy, "bdist_wheel": StableWheel},
    ext_modules=[
        Extension(
            "splitpoint.codec.native._loops",
            sources=sorted(str(path) for path in FOLDER.glob("*.c")),
            depends=sorted(str(path) for path in FOLDER.glob("*.h")),
            define_macros=[("Py_LIMITED_API", "0x030B0000")] if STABLE else [],
            extra_compile_args=FLAGS,
            libraries=["m"],
            py_limited_api=STABLE,
            optional=True,
        )
    ],
)
