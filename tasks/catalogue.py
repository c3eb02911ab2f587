"""The catalogue: what each model was measured to need on each GPU type, in a file that the profile flow writes.

What the configuration declares goes before it. Each number says where it comes from, since when, and its spread.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

HEAD = "# Written by flows/profile.py. A number that is declared in the configuration goes before the one here.\n"


class CatalogueError(Exception):
    """The catalogue cannot be read; the text names each place that is wrong, and what is allowed there."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Number(_Section):
    """One number, and how far it can be trusted."""

    value: float = Field(ge=0)
    source: Literal["declared", "measured", "learned"]
    date: datetime.date
    spread: float = Field(0.0, ge=0)
    """Standard deviation between measurements."""


class Entry(_Section):
    """What one copy takes, and gives, on one GPU type. A number that could not be measured is left out."""

    footprint_bytes: Number | None = None
    service_ms: Number | None = None
    service_cv2: Number | None = None
    load_s: Number | None = None


class Catalogue(_Section):
    """By model, then by GPU type."""

    version: Literal[1] = 1
    models: dict[str, dict[str, Entry]] = Field(default_factory=dict)

    def entry(self, model: str, gpu_type: str) -> Entry:
        """What is known; an entry without numbers where nothing is."""
        return self.models.get(model, {}).get(gpu_type, Entry())

    def with_entry(self, model: str, gpu_type: str, entry: Entry) -> Catalogue:
        """The catalogue with an entry's numbers in place of older ones; those that it lacks stay."""
        before = self.entry(model, gpu_type).model_dump(exclude_none=True)
        merged = Entry.model_validate(before | entry.model_dump(exclude_none=True))
        by_gpu_type = self.models.get(model, {}) | {gpu_type: merged}
        return Catalogue(models=self.models | {model: by_gpu_type})

    def text(self) -> str:
        """As YAML."""
        return HEAD + yaml.safe_dump(self.model_dump(mode="json", exclude_none=True), sort_keys=False)


def read_catalogue(path: Path) -> Catalogue:
    """Read and check a catalogue. One that is not there yet is empty.

    Raises:
        CatalogueError: one line for each place that is wrong.
    """
    try:
        return Catalogue.model_validate(yaml.safe_load(path.read_text()) or {})
    except FileNotFoundError:
        return Catalogue()
    except OSError as error:
        raise CatalogueError(f"catalogue {path}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise CatalogueError(f"catalogue {path}: not YAML: {error}") from error
    except ValidationError as error:
        places = [f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}" for e in error.errors()]
        raise CatalogueError(f"catalogue {path}: {len(places)} wrong:\n" + "\n".join(places)) from error


def write_catalogue(path: Path, catalogue: Catalogue) -> None:
    """Replace the file in one step: a tick reads the old one or the new one.

    Raises:
        OSError: it cannot be written.
    """
    part = path.with_name(path.name + ".part")
    part.write_text(catalogue.text())
    part.replace(path)
