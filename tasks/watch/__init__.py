"""watch: what changed in the fleet between two looks at it, told to Prefect as events that start a tick at once."""

from __future__ import annotations

from tasks.watch.loop import listen
from tasks.watch.sources import Source, source

__all__ = ["Source", "listen", "source"]
