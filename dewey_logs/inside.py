"""Dewey inside Godot's process: entries come to the store as they are, over no wire.

Godot has checked and serialised each of them, so nothing is looked at again. Questions go over MCP in memory, like
those to any other Dewey.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import attrs
import trio

from dewey_logs.metrics import DeweyMetrics
from dewey_logs.store.batch import Batch
from dewey_logs.tools.storing import Storing
from godot.errors import BatchRefused, DeweyFailed, DeweyUnavailable, StoreFailed, StoreUnavailable
from godot.toolnames import DEWEY_STORE


@attrs.frozen
class InsideStore:
    """Stores the batches of the Godot of this process; the twin of `godot.pipeline.dewey.RemoteStore`.

    :param timeout_s: how long a batch may take.
    :param report: gets the text of a bug, for the operator.
    """

    storing: Storing
    metrics: DeweyMetrics
    timeout_s: float
    report: Callable[[str], None]

    async def __call__(self, entries: Sequence[bytes]) -> None:
        """See `godot.pipeline.dewey.Dewey.store`."""
        try:
            with trio.fail_after(self.timeout_s), self.metrics.measuring(DEWEY_STORE):
                await self.storing.keep(Batch.of_serialised(entries))
        except BatchRefused:
            raise
        except StoreFailed as exc:
            raise DeweyFailed(f"Dewey: {exc}") from exc
        except StoreUnavailable as exc:
            raise DeweyUnavailable(f"Dewey: {exc}") from exc
        except trio.TooSlowError as exc:
            raise DeweyFailed(f"Dewey: not stored within {self.timeout_s:g} s") from exc
        except Exception as bug:
            # As over a wire: the sender goes on. If one entry is at fault, the sender finds it.
            self.report(repr(bug))
            raise DeweyFailed(f"Dewey: {bug!r}") from bug
