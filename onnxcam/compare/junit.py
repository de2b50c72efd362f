"""A verdict as JUnit XML, which continuous integration shows as tests."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

from onnxcam.compare.policy import Policy, Verdict, other_reason
from onnxcam.compare.results import FAILED, Results, Row
from onnxcam.files import write_atomically

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(results: Results, policy: Policy, verdict: Verdict) -> bytes:
    """Return a test case a threshold, and one an image.

    An image fails where it breaks a threshold on every image, or could not be compared. A different
    reason is written down, but fails only where a threshold says so.
    """
    suite = ElementTree.Element("testsuite", name="onnxcam compare")
    failures = 0
    for check in verdict.checks:
        case = _case(suite, "thresholds", f"{check.where} {check.name}")
        if not check.passed:
            failures += 1
            ElementTree.SubElement(case, "failure", message=str(check))
    for row in results.rows:
        case = _case(suite, "images", row.image)
        broken = [c.name for c in verdict.checks if row.image in c.failing]
        if row.status == FAILED or broken:
            failures += 1
            message = row.error or f"breaks {', '.join(broken)}: {told(row)}"
            ElementTree.SubElement(case, "failure", message=_clean(message))
        if row.status != FAILED:
            reason = ". Same answer, different reason" if other_reason(row, policy) else ""
            ElementTree.SubElement(case, "system-out").text = _clean(f"{told(row)}{reason}")
    suite.set("tests", str(len(suite)))
    suite.set("failures", str(failures))
    ElementTree.indent(suite)
    text: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return text + b"\n"


def save_junit(path: Path, results: Results, policy: Policy, verdict: Verdict) -> Path:
    """Write the file.

    Raises:
        OutputError: it cannot be written.
    """
    data = junit(results, policy, verdict)
    return write_atomically(path, lambda file: file.write(data))


def told(row: Row) -> str:
    """Return what was found on an image, in a line."""
    if row.reference is None or row.candidate is None:
        return row.error or row.status
    first, second = row.reference.name, row.candidate.name
    answer = (
        f"both say {first}" if row.measures.get("agreement", 1) else f"{first}, candidate: {second}"
    )
    if row.boxes is not None:
        answer += f" ({', '.join(f'{n} {kind}' for kind, n in row.boxes.items())})"
    if "correlation" not in row.measures or row.status != "compared":
        return f"{answer}; {row.status}"
    numbers = f"correlation {row.measures['correlation']:.3f}"
    return f"{answer}; {numbers}, peak shift {row.measures['peak_shift']:.3f}"


def _case(suite: ElementTree.Element, group: str, name: str) -> ElementTree.Element:
    return ElementTree.SubElement(
        suite, "testcase", classname=f"onnxcam.compare.{group}", name=_clean(name)
    )


def _clean(text: str) -> str:
    return _NOT_XML.sub("?", text)
