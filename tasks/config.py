"""The configuration: one YAML file that a person writes, checked in full before anything is touched.

``python -m tasks.config FILE`` checks a file; ``python -m tasks.config --schema`` prints the JSON schema for editors.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import BaseModel, Field, PrivateAttr, ValidationError, model_validator

from tasks.catalogue import Catalogue, CatalogueError, read_catalogue
from tasks.sections import (
    GatewaySection,
    KubernetesSection,
    LimitsSection,
    LocalSection,
    MetricsSection,
    ModelSection,
    NeedSection,
    PoolSection,
    Section,
)
from tasks.world import Model, Pool

NAME = r"^[A-Za-z0-9]([A-Za-z0-9_.-]{0,98}[A-Za-z0-9])?$"
"""A name becomes part of a URL and of a file name: letters, digits, ``_ . -``, at most 100, not at its ends."""


class ConfigError(Exception):
    """The configuration is wrong; the text names each place, what is wrong there and what is allowed."""


class Config(Section):
    """Everything there is to configure."""

    fleet: Annotated[LocalSection | KubernetesSection, Field(discriminator="kind")] = LocalSection()
    """Where the replicas are: local processes, or the pods of a cluster."""
    pools: dict[Annotated[str, Field(pattern=NAME)], PoolSection] = Field(min_length=1)
    """Pools by name: interchangeable replicas of one GPU type."""
    models: dict[Annotated[str, Field(pattern=NAME)], ModelSection] = Field(min_length=1)
    """Needs and policy by the model's name in Triton's repository."""
    limits: LimitsSection = LimitsSection()
    """Thresholds, budget and times of the tick."""
    metrics: MetricsSection = MetricsSection()
    """Where demand and queue times are read from, and how far back."""
    catalogue: Path | None = None
    """File of measured needs that flows/profile.py writes; relative to this file. Left out: all is declared here."""
    _catalogue: Catalogue = PrivateAttr(default_factory=Catalogue)

    @model_validator(mode="after")
    def _references(self) -> Config:
        gpu_types = {section.gpu_type or name for name, section in self.pools.items()}
        for name, model in self.models.items():
            for kind, named, known in (("pool", model.pools or (), set(self.pools)), ("GPU type", model.on, gpu_types)):
                if unknown := sorted(set(named) - known):
                    raise ValueError(
                        f"models.{name} names {kind} {', '.join(unknown)}; there are: {', '.join(sorted(known))}"
                    )
        return self

    @model_validator(mode="after")
    def _metrics_are_somewhere(self) -> Config:
        if self.fleet.kind == "kubernetes" and not (self.metrics.prometheus_url and self.metrics.pushgateway_url):
            raise ValueError("a Kubernetes fleet needs metrics.prometheus_url and metrics.pushgateway_url")
        return self

    @model_validator(mode="after")
    def _history_shows_idleness(self) -> Config:
        for name, model in self.models.items():
            if model.min_copies == 0 and model.idle_s > self.metrics.history_s:
                raise ValueError(
                    f"models.{name}.idle_s {model.idle_s:g} is more than metrics.history_s {self.metrics.history_s:g}: "
                    "it would never be seen idle"
                )
        return self

    def catalogue_path(self, config_path: Path | str) -> Path:
        """Where the catalogue is.

        Raises:
            ConfigError: the configuration names none.
        """
        if self.catalogue is None:
            raise ConfigError(f"{config_path}: it names no catalogue, for example `catalogue: catalogue.yaml`")
        return Path(config_path).parent / self.catalogue

    def with_catalogue_of(self, other: Config) -> Config:
        """This configuration with the catalogue that another was read with."""
        self._catalogue = other._catalogue
        return self

    @property
    def local_state(self) -> Path:
        """The local fleet's folder.

        Raises:
            ConfigError: the fleet is not local.
        """
        if not isinstance(self.fleet, LocalSection):
            raise ConfigError(f"fleet.kind is {self.fleet.kind}: this needs a local fleet")
        return self.fleet.state

    def domain_models(self) -> tuple[Model, ...]:
        gpu_types = {section.gpu_type or name for name, section in self.pools.items()}
        return tuple(section.model(name, gpu_types, self._catalogue) for name, section in sorted(self.models.items()))

    def missing_needs(self) -> list[str]:
        """One line for each model and GPU type whose footprint or service time nobody knows."""
        models = {model.name: model for model in self.domain_models()}
        where = f"the catalogue {self.catalogue}" if self.catalogue else "a catalogue"
        wanted = sorted(
            {
                (name, pool.gpu_type)
                for name, model in models.items()
                for pool in self.domain_pools()
                if (model.pools is None or pool.name in model.pools) and pool.gpu_type not in model.need_by_gpu_type
            }
        )
        return [
            f"  models.{name}: footprint and service_ms on GPU type {gpu} are neither declared nor in {where}: "
            "declare them, or run flows/profile.py"
            for name, gpu in wanted
        ]

    def domain_pools(self) -> tuple[Pool, ...]:
        return tuple(section.pool(name) for name, section in self.pools.items())


def read_config(path: Path | str, has_needs: bool = True) -> Config:
    """Read and check a configuration file, and the catalogue that it names.

    ``has_needs`` False: models may still be without a footprint or a service time, since they are yet to be profiled.

    Raises:
        ConfigError: one line for each place that is wrong, with what is allowed there.
    """
    config = _read(path)
    if config.catalogue is not None:
        try:
            config._catalogue = read_catalogue(config.catalogue_path(path))
        except CatalogueError as error:
            raise ConfigError(str(error)) from error
    if has_needs and (missing := config.missing_needs()):
        raise ConfigError(f"{path}: {len(missing)} wrong:\n" + "\n".join(missing))
    return config


def _read(path: Path | str) -> Config:
    try:
        text = Path(path).read_text()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    try:
        return Config.model_validate(yaml.safe_load(text) or {})
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from error
    except ValidationError as error:
        places = wrong_places(error)
        raise ConfigError(f"{path}: {len(places)} wrong:\n" + "\n".join(places)) from error


def wrong_places(error: ValidationError) -> list[str]:
    """One line for each place that is wrong, with what is allowed there."""
    return [
        f"  {'.'.join(map(str, e['loc'])) or '(top)'}: {e['msg']}{_allowed(e['loc'], e['type'])}"
        for e in error.errors()
    ]


SECTION_BY_KEY: dict[str, type[BaseModel]] = {
    "pools": PoolSection,
    "models": ModelSection,
    "on": NeedSection,
    "limits": LimitsSection,
    "metrics": MetricsSection,
    "local": LocalSection,
    "kubernetes": KubernetesSection,
    "gateway": GatewaySection,
}


def _allowed(location: tuple[int | str, ...], kind: str) -> str:
    """The keys that are allowed where an unknown one was found."""
    if kind != "extra_forbidden":
        return ""
    section: type[BaseModel] = Config
    for part in location[:-1]:
        section = SECTION_BY_KEY.get(str(part), section)
    return f"; allowed: {', '.join(section.model_fields)}"


def schema() -> str:
    """The JSON schema of the configuration, for editors."""
    return json.dumps(Config.model_json_schema(), indent=2) + "\n"


if __name__ == "__main__":
    if "--schema" in sys.argv:
        print(schema(), end="")
    else:
        try:
            read_config(sys.argv[1])
        except ConfigError as error:
            sys.exit(str(error))
        print(f"{sys.argv[1]}: good")
