"""What a supervisor is told by its caller, over a pipe: no secret reaches a file or a command line."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from trivet.settings import Settings
from trivet.supervisor.workers import WorkerSpec


@dataclass(frozen=True, slots=True)
class Plan:
    """One system: its settings, which servers are its own, and the workers."""

    settings: Settings
    #: Fields that the caller set, not taken from defaults.
    explicit: tuple[str, ...]
    workers: tuple[WorkerSpec, ...]

    @property
    def own_redis(self) -> bool:
        """Whether the system brings its own Valkey: nobody named another."""
        return "redis_url" not in self.explicit

    @property
    def own_s3(self) -> bool:
        """Whether the system brings its own S3: nobody named another, nor keys for one."""
        return not {"s3_endpoint", "s3_access_key"} & set(self.explicit)

    def line(self) -> bytes:
        """The plan as one line."""
        values = self.settings.model_dump(mode="json")
        for name in ("s3_secret_key", "index_api_key"):
            values[name] = getattr(self.settings, name).get_secret_value()
        workers = [asdict(worker) for worker in self.workers]
        return json.dumps({"settings": values, "explicit": self.explicit, "workers": workers}).encode() + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Plan:
        """The plan of a line."""
        known = json.loads(line)
        workers = tuple(WorkerSpec(**(worker | {"argv": tuple(worker["argv"])})) for worker in known["workers"])
        return cls(Settings.load(**known["settings"]), tuple(known["explicit"]), workers)


def plan(settings: Settings, workers: tuple[WorkerSpec, ...]) -> Plan:
    """The plan for these settings, whose state folder is made absolute."""
    absolute = settings.model_copy(update={"state_dir": settings.state_dir.absolute()})
    return Plan(absolute, tuple(sorted(settings.model_fields_set)), workers)
