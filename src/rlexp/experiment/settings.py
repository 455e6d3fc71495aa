"""The keys of a composed configuration that are not a part's own: their types and legal ranges. Values are in conf/."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from rlexp.experiment.schema import Part
from rlexp.ranges import Range

Count = Annotated[int, Range(1)]


@dataclass
class EnvSettings:
    id: str
    kwargs: dict[str, Any]
    time_limit: Count | None
    declared: dict[str, Any]  # checked where it is read: envs.make writes the same form


@dataclass
class EvaluationSettings:
    interval: Count | None
    episodes: Count
    final_episodes: Count
    policy: Literal["deterministic", "sampled"]
    seed: Annotated[int, Range(0)]
    num_envs: Count


@dataclass
class WandbSettings:
    mode: Literal["auto", "online", "offline"]
    project: str
    entity: str | None


@dataclass
class LoggerSettings:
    interval: Count | None
    wandb: WandbSettings | None


@dataclass
class CheckpointSettings:
    interval: Count | None
    keep: Count


@dataclass
class ExecutionSettings:
    programs: bool
    compile: bool
    threads: Count
    vector: Literal["auto", "sync", "async", "numpy"]
    workers: Count | None
    step_deadline: Annotated[float, Range(0, open_low=True)] | None


@dataclass
class Settings:
    seed: Annotated[int, Range(0)]
    seeds: list[Annotated[int, Range(0)]] | None
    device: str
    total_env_steps: Count
    env: EnvSettings
    algorithm: Part
    estimator: Part | None
    baseline: Part | None
    normalization: Part | None
    exploration: Part | None
    network: Part | None
    experience: Part
    optimizer: dict[str, Any] | None  # a part, and `networks`: what differs for a network, by its name
    evaluation: EvaluationSettings | None
    logger: LoggerSettings
    checkpoint: CheckpointSettings
    execution: ExecutionSettings
    display: Literal["auto", "live", "plain", "none"]
    outputs: str
    restart: bool
    extend: str | None
    plugins: list[str]
    tags: list[str]
