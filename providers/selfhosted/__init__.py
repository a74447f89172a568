"""Our own GPU servers, as long as they speak OpenAI's image endpoint: one, or several nodes as one pool."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator

from providers.selfhosted.adapter import Selfhosted
from providers.selfhosted.dialects import DIALECTS, Name
from providers.selfhosted.node import Node
from providers.selfhosted.pool import Habits, MeteredPool, Pool
from providers.transport import Http

__all__ = ["MeteredPool", "NodeSettings", "Pool", "Selfhosted", "Settings", "connect"]

_Url = Annotated[str, Field(pattern=r"^https?://")]


class NodeSettings(BaseModel):
    """One node: a server and the machine it runs on."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,31}$", description="How logs, doctor and reports call it.")
    base_url: _Url = Field(description="Address of its server, without /v1.")
    dialect: Name = Field(
        default="openai", description="What it speaks: openai, sglang, vllm-omni, sd-server, aquiles-image."
    )
    slots: int = Field(default=1, ge=1, description="Orders it works on at once: 1, or what it puts into one batch.")
    models: tuple[str, ...] | Mapping[str, str] | None = Field(
        default=None,
        description="Endpoints it serves, each with its own name of it where that differs; every one when left out.",
    )
    steps: int | None = Field(
        default=None, ge=1, description="Steps it was started with, for a dialect that takes none with an order."
    )


class Settings(BaseModel):
    """Where the server is (`base_url`), or the servers (`nodes`), and the key they want, if any."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    base_url: _Url | None = Field(default=None, description="Address of the one server, without /v1.")
    dialect: Name = Field(default="openai", description="What the one server speaks.")
    nodes: tuple[NodeSettings, ...] | None = Field(default=None, description="The servers of a pool.")
    key: SecretStr | None = Field(default=None, description="Sent as a bearer token; none when left out.")
    probe_every: float = Field(default=5.0, gt=0, description="Seconds between two looks at each node.")
    failures: int = Field(default=3, ge=1, description="Failures in a row after which a node is left alone.")
    quarantine: float = Field(
        default=60.0, ge=0, description="Seconds without orders for a node that answered with a wrong picture."
    )
    wait: float = Field(default=5.0, ge=0, description="Seconds that an order waits for a free slot, at most.")
    linger: float = Field(
        default=300.0, ge=0, description="Seconds the slot of an order stays taken that we lost sight of, at most."
    )
    usage: bool = Field(default=False, description="Whether every node keeps a log of its orders at /v1/usage.")
    machine_hour: int | None = Field(default=None, gt=0, description="Nano-dollars an hour of one node costs.")

    @model_validator(mode="after")
    def _one_or_many(self) -> Settings:
        if (self.base_url is None) == (not self.nodes):
            raise ValueError("give either `base_url`, for one server, or `nodes`, for several")
        if self.usage and (self.nodes is None or self.machine_hour is None):
            raise ValueError("`usage` needs `nodes`, and `machine_hour` to say what a logged second costs")
        names = [node.name for node in self.nodes or ()]
        if len(set(names)) < len(names):
            raise ValueError("two nodes have the same name")
        return self


def connect(name: str, settings: Settings, http: Http) -> Selfhosted | Pool:
    """Speak to the server or the nodes of `settings` for the provider account `name`."""
    key = settings.key.get_secret_value() if settings.key else ""
    if settings.base_url is not None:
        return Selfhosted(name, settings.base_url, http, key=key, dialect=DIALECTS[settings.dialect], machine=name)
    nodes = [_node(name, node, settings, key, http) for node in settings.nodes or ()]
    habits = Habits(probe_every=settings.probe_every, quarantine=settings.quarantine, wait=settings.wait)
    if settings.usage and settings.machine_hour is not None:
        return MeteredPool(name, nodes, habits, machine_hour=settings.machine_hour)
    return Pool(name, nodes, habits)


def _node(account: str, node: NodeSettings, settings: Settings, key: str, http: Http) -> Node:
    models = node.models if isinstance(node.models, Mapping) or node.models is None else {m: m for m in node.models}
    server = Selfhosted(
        account,
        node.base_url,
        http,
        key=key,
        dialect=DIALECTS[node.dialect],
        slots=node.slots,
        models=models,
        machine=node.name,
    )
    return Node(
        node.name,
        server,
        slots=node.slots,
        steps=node.steps,
        failures=settings.failures,
        linger=settings.linger,
    )
