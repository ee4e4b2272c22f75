"""A worker serves a newer model: the device fetches it beside the old one, and goes on with it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from splitpoint.codec import SplitpointError
from splitpoint.proto.backoff import Backoff
from splitpoint.proto.tasks import cancel_and_wait

from .errors import AgentError
from .session import Session
from .store.prepare import Prepared
from .succession import Succession

log = logging.getLogger("splitpoint.edge")

LOOK_S = 0.5  # how often it is looked whether the workers refuse the model
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0  # after an attempt, whether or not it failed

Admit = Callable[[Prepared], None]


class Upgrade:
    """Follows the workers to the model that they serve, once none serves the present one.

    `opening` makes a session ready, unless what it is given raises for the model that it is of. It
    stands beside the present session until it is ready, so frames go on; where it fails, they go on
    as before. Pauses double with each attempt, so that workers that go to and fro between models
    cannot keep a device busy with fetching and loading. `switched` is told when it is done.
    """

    def __init__(
        self,
        succession: Succession,
        opening: Callable[[Admit], AbstractAsyncContextManager[Session]],
        switched: Callable[[str], None],
    ) -> None:
        self._succession, self._opening, self._switched = succession, opening, switched
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """From now on."""
        self._task = asyncio.create_task(self._watch(), name="upgrade")

    async def close(self) -> None:
        """Ends what is under way."""
        await cancel_and_wait(self._task)

    async def _watch(self) -> None:
        pauses, said, tried_s = Backoff(FIRST_PAUSE_S, LONGEST_PAUSE_S), "", 0.0
        while True:
            await asyncio.sleep(LOOK_S)
            present = self._succession.present
            if present is None or not present.session.workers.refuse:
                if time.monotonic() - tried_s > LONGEST_PAUSE_S:
                    pauses.reset()
                said = ""
                continue
            old = present.session.prepared
            try:
                await self._follow(old)
            except SplitpointError as error:
                if str(error) != said:
                    said = str(error)
                    log.warning("the device goes on with %s: %s", _name(old), error)
            except Exception:  # nothing of a newer model may end the frames of this one
                log.exception("the device goes on with %s", _name(old))
            tried_s = time.monotonic()
            await asyncio.sleep(pauses.next_s())

    async def _follow(self, old: Prepared) -> None:
        found: list[Prepared] = []

        def check(new: Prepared) -> None:
            check_follows(old, new)
            log.warning("the workers serve %s now, which is fetched", _name(new))
            found.append(new)

        await self._succession.follow(_whole(self._opening(check)))
        self._switched(f"frames go through {_name(found[0])} now, instead of {_name(old)}")


@asynccontextmanager
async def _whole(opening: AbstractAsyncContextManager[Session]) -> AsyncIterator[Session]:
    """A session that can also finish frames on the device, where that is wanted."""
    async with opening as session:
        await session.finish.wait()
        if session.finish.error is not None:
            raise session.finish.error
        yield session


def check_follows(old: Prepared, new: Prepared) -> None:
    """Raises where a run cannot go on with a `new` model, or there is none."""
    if new.away is not None:
        raise new.away
    if new.digest == old.digest:
        raise AgentError("the workers refuse its frames, and name no other")
    first, last = new.manifest, old.manifest
    same = (
        first.boundaries[0].tensors == last.boundaries[0].tensors
        and first.picture == last.picture
        and first.task.kind == last.task.kind
    )
    if not same:
        raise AgentError(
            f"the workers serve {_name(new)} now, which has other inputs or another task",
            "start the agent again to go on with that",
        )


def _name(prepared: Prepared) -> str:
    return f"{prepared.manifest.name} {prepared.digest[:12]}"
