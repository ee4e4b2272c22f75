"""The options with which a device knows its workers and proves who it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer
from splitpoint.edge.transport.credentials import Credentials

TOKEN_VARIABLE = "SPLITPOINT_TOKEN"

TlsCa = Annotated[
    Path | None,
    typer.Option(
        help="Use TLS; trust workers whose certificate this CA signed.", show_default=False
    ),
]
TlsCert = Annotated[
    Path | None, typer.Option(help="This device's certificate (PEM).", show_default=False)
]
TlsKey = Annotated[
    Path | None, typer.Option(help="The key of that certificate (PEM).", show_default=False)
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        help=f"A file with this device's token; or set {TOKEN_VARIABLE}.", show_default=False
    ),
]
Insecure = Annotated[
    bool, typer.Option("--insecure", help="Send the token even where no TLS hides it.")
]


def credentials_of(
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    token_file: Path | None,
    insecure: bool,
) -> Credentials:
    """What the options say. Raises `AgentError` for what does not go together.

    A token never stands on the command line, where every process of the machine could read it.
    """
    token = os.environ.get(TOKEN_VARIABLE, "").strip() if token_file is None else ""
    return Credentials(
        tls_ca=tls_ca,
        tls_cert=tls_cert,
        tls_key=tls_key,
        token=token,
        token_file=token_file,
        insecure=insecure,
    )
