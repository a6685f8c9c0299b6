"""What a check found: collected, sorted, and written down for people and for programs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from avccfs.format.ikey import Dialect
from avccfs.session.advice import ADVICE
from avccfs.session.faults import Code, Finding, Flaw, Severity

MOST_ALIKE: Final = 100
"""How many findings of one code in one file are kept; of more, only the number."""
MOST_SHOWN: Final = 5
"""How many of them a person is shown."""


@dataclass(frozen=True, slots=True)
class Omitted:
    """Findings that are not spelled out, because there are `MOST_ALIKE` like them."""

    file: str
    code: Code
    count: int


@dataclass(slots=True)
class Counts:
    """What was looked at. Files are counted whether they could be read or not."""

    tables: int = 0
    live_tables: int = 0
    journals: int = 0
    live_journals: int = 0
    manifests: int = 0
    other_files: int = 0
    bytes: int = 0
    """In tables, journals and manifests."""
    blocks: int = 0
    """Of tables, that could be read."""
    table_entries: int = 0
    journal_records: int = 0
    journal_entries: int = 0


@dataclass(frozen=True, slots=True)
class Report:
    """What `check` found."""

    directory: str
    manifest: str | None
    """The live manifest, or the one that stood in for it."""
    dialect: Dialect
    findings: tuple[Finding, ...]
    """The worst first, those of one file and code together."""
    omitted: tuple[Omitted, ...]
    counts: Counts

    @property
    def sound(self) -> bool:
        """Whether there is neither damage nor a risk of loss."""
        return all(finding.severity.sound for finding in self.findings)


class Findings:
    """Findings, as they come; of those that are alike only so many."""

    def __init__(self) -> None:
        self._findings: list[Finding] = []
        self._counts: Counter[tuple[str, Code]] = Counter()

    def add(
        self,
        file: str,
        flaw: Flaw,
        *,
        severity: Severity | None = None,
        live: bool = True,
        times: int = 1,
    ) -> None:
        """One more. `severity` None is what the code says, or less if the file is not live."""
        usual, advice = ADVICE[flaw.code]
        if severity is None:
            severity = usual if live or usual.sound else Severity.ODDITY
        self._counts[file, flaw.code] += times
        if self._counts[file, flaw.code] > MOST_ALIKE:
            return
        self._findings.append(
            Finding(
                flaw.code,
                severity,
                file,
                flaw.offset,
                flaw.length,
                flaw.expected,
                flaw.found,
                advice,
            )
        )

    def tell(
        self,
        code: Code,
        file: str,
        expected: str,
        found: str,
        *,
        severity: Severity | None = None,
        live: bool = True,
    ) -> None:
        """One more, about a file as a whole."""
        flaw = Flaw(code, None, None, expected, found)
        self.add(file, flaw, severity=severity, live=live)

    def more(self, file: str, code: Code, count: int) -> None:
        """Some that were not spelled out."""
        self._counts[file, code] += count

    def sorted(self) -> tuple[Finding, ...]:
        """The worst first, then by file and place."""
        order = {code: number for number, code in enumerate(Code)}
        return tuple(
            sorted(
                self._findings,
                key=lambda each: (
                    each.severity.rank,
                    each.file,
                    order[each.code],
                    each.offset if each.offset is not None else -1,
                ),
            )
        )

    def omitted(self) -> tuple[Omitted, ...]:
        """How many are not among them."""
        kept = Counter((each.file, each.code) for each in self._findings)
        return tuple(
            Omitted(file, code, number - kept[file, code])
            for (file, code), number in sorted(
                self._counts.items(), key=lambda item: (item[0][0], item[0][1].value)
            )
            if number > kept[file, code]
        )


def as_json(report: Report) -> dict[str, object]:
    """The report as one object, for programs. Its keys, and those of a finding, are stable."""
    return {
        "directory": report.directory,
        "sound": report.sound,
        "manifest": report.manifest,
        "dialect": report.dialect.value,
        "findings": [
            {
                "code": finding.code.value,
                "severity": finding.severity.value,
                "file": finding.file,
                "offset": finding.offset,
                "length": finding.length,
                "expected": finding.expected,
                "found": finding.found,
                "advice": finding.advice,
            }
            for finding in report.findings
        ],
        "omitted": [
            {"file": each.file, "code": each.code.value, "count": each.count}
            for each in report.omitted
        ],
        "files": dataclasses.asdict(report.counts),
    }


def as_lines(report: Report) -> Iterator[str]:
    """The report for a person who is in a hurry: the verdict, the findings, what was looked at.

    Names that do not print come as Python would write them.
    """
    yield _verdict(report)
    omitted = {(each.file, each.code): each.count for each in report.omitted}
    for severity in Severity:
        findings = [each for each in report.findings if each.severity is severity]
        if not findings:
            continue
        yield ""
        yield f"{severity.value}:"
        alike: Counter[tuple[str, Code]] = Counter((each.file, each.code) for each in findings)
        shown: Counter[tuple[str, Code]] = Counter()
        for finding in findings:
            kind = finding.file, finding.code
            shown[kind] += 1
            if shown[kind] <= MOST_SHOWN:
                yield f"  {_line(finding)}"
            left = alike[kind] - MOST_SHOWN
            if shown[kind] == alike[kind] and left + omitted.get(kind, 0) > 0:
                more = max(left, 0) + omitted.pop(kind, 0)
                yield f"  {_printable(finding.file)} {finding.code.value}: {more} more like these"
    counts = report.counts
    yield ""
    yield (
        f"looked at {counts.bytes} bytes: tables: {counts.tables} ({counts.live_tables} live), "
        f"journals: {counts.journals} ({counts.live_journals} live), "
        f"manifests: {counts.manifests}, other files: {counts.other_files}, "
        f"blocks: {counts.blocks}, entries in tables: {counts.table_entries}, "
        f"in journals: {counts.journal_entries}"
    )


def _verdict(report: Report) -> str:
    if report.manifest is None:
        against = "there is no manifest to go by"
    else:
        against = f"by {report.manifest}, {report.dialect.value} dialect"
    if any(finding.code is Code.IN_USE for finding in report.findings):
        against += ", in use while it was checked"
    directory = _printable(report.directory)
    if report.sound:
        return f"{directory}: sound ({against})"
    numbers = Counter(finding.severity for finding in report.findings)
    severities = [Severity.DAMAGE, Severity.LOSS_RISK]
    found = ", ".join(f"{numbers[each]} {each.value}" for each in severities if numbers[each])
    return f"{directory}: NOT SOUND: {found} ({against})"


def _line(finding: Finding) -> str:
    place = _printable(finding.file)
    if finding.offset is not None:
        place += f":{finding.offset}"
    return (
        f"{place} {finding.code.value}: expected {finding.expected}, "
        f"found {finding.found}; {finding.advice}"
    )


def _printable(name: str) -> str:
    """A name as it may go to a terminal: without control characters, and encodable."""
    return name if name.isprintable() else repr(name)
