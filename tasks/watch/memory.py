"""What was told last, on disk: a listener that starts again compares with it, so that no change in between is lost."""

from __future__ import annotations

import json
import logging
import tempfile
from dataclasses import asdict
from pathlib import Path

from tasks.watch.changes import Rescale, Seen, Snapshot

log = logging.getLogger(__name__)


def read(path: Path) -> Snapshot | None:
    """None: there is nothing, or nothing that can be read. Then every ready replica is news."""
    try:
        content = json.loads(path.read_text())
        replicas = {
            name: Seen(**{**seen, "carries": frozenset(seen["carries"])}) for name, seen in content["replicas"].items()
        }
        rescales = {pool: Rescale(**rescale) for pool, rescale in content["rescale_by_pool"].items()}
        return Snapshot(replicas, content["count_by_pool"], rescales, content["unserved_by_model"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s cannot be read and is written anew: %s", path, error)
        return None


def beat(path: Path) -> None:
    """Say, by the age of the file beside it, that the loop goes round: a liveness probe looks at that.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".alive").touch()


def write(path: Path, snapshot: Snapshot) -> None:
    """Readers see the old file or the new one, never half of one.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False) as file:
        json.dump(asdict(snapshot), file, default=sorted)
    Path(file.name).rename(path)
