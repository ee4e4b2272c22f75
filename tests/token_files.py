"""Files of tokens for workers in tests, and what their clients say."""

from __future__ import annotations

import hashlib
from pathlib import Path


def token_file(folder: Path, **tables: str) -> Path:
    """Each client's token is its own name; its table holds what is given for it."""
    path = folder / "tokens.toml"
    path.write_text(
        "".join(
            f'[{name}]\ntoken_sha256 = "{hashlib.sha256(name.encode()).hexdigest()}"\n{more}\n'
            for name, more in tables.items()
        )
    )
    return path


def bearer(token: str) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {token}")]
