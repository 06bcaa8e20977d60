"""What an audit has found."""

from __future__ import annotations

from dataclasses import dataclass

from trivet.values import Frozen

#: Findings that a report names; more are only counted.
_NAMED = 1000


class Finding(Frozen):
    """One thing that is not as it must be."""

    #: What; docs/auditing.md lists them.
    code: str
    #: A task, a work item, a key in Redis or on S3.
    where: str
    #: One sentence without its full stop.
    detail: str
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class AuditReport:
    """All of one audit."""

    tasks: int
    objects: int
    findings: tuple[Finding, ...]
    #: How many there were in all, and how many of these are not repaired.
    found: int
    left: int
    #: What could not be judged, and why.
    notes: tuple[str, ...]


class Findings:
    """Gathers findings; the same one twice counts once."""

    def __init__(self, repair: bool) -> None:
        self.repair = repair
        self.tasks = 0
        self.objects = 0
        self._named: dict[tuple[str, str], Finding] = {}
        self._more: list[int] = [0, 0]
        self._notes: list[str] = []

    def add(self, code: str, where: str, detail: str, *, repaired: bool = False) -> None:
        """One more."""
        known = (code, where) in self._named
        if known or len(self._named) < _NAMED:
            if not known or repaired:
                self._named[code, where] = Finding(code=code, where=where, detail=detail, repaired=repaired)
        else:
            self._more[repaired] += 1

    def note(self, text: str) -> None:
        """Something that could not be judged."""
        self._notes.append(text)

    def report(self) -> AuditReport:
        """As it stands."""
        named = tuple(self._named.values())
        return AuditReport(
            tasks=self.tasks,
            objects=self.objects,
            findings=named,
            found=len(named) + sum(self._more),
            left=sum(not finding.repaired for finding in named) + self._more[False],
            notes=tuple(self._notes),
        )
