"""`splitpoint certs`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..shell.output import say


def certs(
    out: Annotated[Path, typer.Option(help="The folder for all of them.", show_default=False)],
    server: Annotated[
        list[str] | None,
        typer.Option(
            help="The worker's names and addresses, as edges call it: NAME[,NAME…].",
            show_default=False,
        ),
    ] = None,
    device: Annotated[
        list[str] | None,
        typer.Option(help="A device's name; repeatable, or with commas.", show_default=False),
    ] = None,
    days: Annotated[int, typer.Option(help="How long they are valid.", min=1)] = 730,
) -> None:
    """Make certificates for a worker and its devices, for tests and small fleets.

    Writes NAME.pem and NAME.key for each, signed by the authority ca.pem, ca.key in the same
    folder. That is made the first time and used again afterwards, so that devices can be added.
    """
    from splitpoint.cloud.access.certs import make_certificates

    servers, devices = _names(server), _names(device)
    for path in make_certificates(out, servers=servers, devices=devices, days=days):
        say(str(path))
    say("for tests and small fleets: who has ca.key can pose as any worker and any device")
    if servers:
        say(
            f"worker: --tls-cert {out / 'server.pem'} --tls-key {out / 'server.key'} "
            f"--client-ca {out / 'ca.pem'}"
        )
    for name in devices:
        say(
            f"{name}: --tls-ca {out / 'ca.pem'} --tls-cert {out / f'{name}.pem'} "
            f"--tls-key {out / f'{name}.key'}"
        )


def _names(given: list[str] | None) -> list[str]:
    return [name.strip() for one in given or () for name in one.split(",") if name.strip()]
