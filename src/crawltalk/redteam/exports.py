"""Scores in the forms that other programs read: SARIF 2.1.0 for code hosts, JUnit's XML for continuous integration."""

from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import msgspec

from crawltalk.core.files import write_atomically
from crawltalk.redteam.frame import Outcome
from crawltalk.redteam.scores import Cell, Gate, Scores, label

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"


def write_sarif(path: Path, scores: Scores, attempts: Path) -> None:
    """A result for each cell in which goals fell, and for each that could not be judged."""
    cells = [cell for cell in scores.cells if not cell.control]
    rules = {
        cell.attack: {
            "id": cell.attack,
            "name": cell.attack,
            "shortDescription": {"text": f"{cell.attack} ({cell.family})"},
            "properties": {"tags": [f"OWASP {cell.owasp}", f"MITRE ATLAS {cell.atlas}"]},
        }
        for cell in cells
    }
    results = [_result(cell, attempts) for cell in cells if cell.rate != 0.0 or _open(cell)]
    driver = {"name": "crawltalk redteam", "version": version("crawltalk"), "rules": list(rules.values())}
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}
    write_atomically(path, msgspec.json.format(msgspec.json.encode(log)))


def _result(cell: Cell, attempts: Path) -> dict[str, object]:
    fell = cell.verdicts.get(Outcome.SUCCESS, 0)
    text = f"{label(cell)}: {fell} of {cell.goals} goals fell"
    if _open(cell):
        text += f", {_open(cell)} could not be judged"
    if cell.notes:
        text += f" ({', '.join(cell.notes)})"
    return {
        "ruleId": cell.attack,
        "level": "error" if fell else "warning",
        "message": {"text": text},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": attempts.as_posix()}}}],
        "partialFingerprints": {"cell": label(cell)},
    }


def _open(cell: Cell) -> int:
    """Goals that were not judged."""
    return cell.verdicts.get(Outcome.NOT_RUN, 0) + cell.verdicts.get(Outcome.UNDETERMINED, 0)


def write_junit(path: Path, scores: Scores) -> None:
    """A test case for each gate; without gates, one for each cell, which fails if a goal fell or was not judged."""
    gates = scores.gates or [
        Gate(cell=label(cell), passed=cell.rate == 0.0 and not _open(cell), reason=f"{cell.verdicts}")
        for cell in scores.cells
        if not cell.control
    ]
    failed = [gate for gate in gates if not gate.passed]
    suite = ElementTree.Element(
        "testsuite", name="crawltalk redteam", tests=str(len(gates)), failures=str(len(failed))
    )
    for gate in gates:
        case = ElementTree.SubElement(suite, "testcase", name=gate.cell, classname="redteam")
        if not gate.passed:
            ElementTree.SubElement(case, "failure", message=gate.reason)
    write_atomically(path, ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True))
