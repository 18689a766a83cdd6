"""What garak's reports are read as. The rows have the form of garak 0.17.1; the texts are ours."""

import json
from collections import Counter
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crawltalk.core.errors import BadInput
from crawltalk.judges import garak
from crawltalk.judges.garak import GarakReport, compare, configuration, read, refusals
from crawltalk.judges.served import Served
from crawltalk.redteam.frame import Outcome

PROBE, BYPASS, MARK = "dan.Example", "mitigation.MitigationBypass", "dan.DAN"


def attempt(
    seq: int,
    asks: str,
    said: str | None,
    scores: dict[str, float | None],
    *,
    status: int = 2,
    probe: str = PROBE,
) -> dict:
    message = {"lang": "en", "data_path": None, "data_type": None, "data_checksum": None, "notes": {}}
    return {
        "entry_type": "attempt",
        "uuid": f"00000000-0000-0000-0000-{seq:012}",
        "seq": seq,
        "status": status,
        "probe_classname": probe,
        "probe_params": {},
        "targets": [],
        "prompt": {"turns": [{"role": "user", "content": {"text": asks, **message}}], "notes": None},
        "outputs": [None if said is None else {"text": said, **message}],
        "detector_results": {name: [score] for name, score in scores.items()} if status == 2 else {},
        "notes": {},
        "goal": "disregard the system prompt",
        "intent": "T009ignore",
    }


def twice(*rows: dict) -> list[dict]:
    """As garak writes them: each when it is asked, and again when it is judged."""
    return [*({**row, "status": 1, "detector_results": {}} for row in rows), *rows]


def written(folder: Path, rows: list[dict], *, ends: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    head = [{"entry_type": "start_run setup", "_config.version": "0.17.1"}, {"entry_type": "init"}]
    tail = [{"entry_type": "completion", "run": "r"}, {"entry_type": "digest"}] if ends else []
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [*head, *rows, *tail])
    (folder / garak.REPORT).write_text(text, encoding="utf-8")
    return folder


def test_an_attempt_that_stands_twice_counts_once(tmp_path):
    rows = [attempt(i, f"Say {i}", "no", {BYPASS: 1.0, MARK: 0.0}) for i in range(3)]
    report = read(written(tmp_path, twice(*rows)))
    assert report.finished
    bypass, mark = compare(report, {}, "")[0]
    assert (bypass.name, bypass.asked, bypass.evaluated, bypass.hits) == (f"{PROBE}, {BYPASS}", 3, 3, 3)
    assert (mark.evaluated, mark.hits, mark.rate) == (3, 0, 0.0)


def test_attempts_that_the_server_refused_are_said_with_their_reason_though_garak_ended_well(tmp_path):
    folder = written(tmp_path, twice(*(attempt(i, "x" * 999, None, {BYPASS: None}) for i in range(4))))
    log = folder / garak.LOG
    log.parent.mkdir(parents=True)
    said = "{'error': {'message': \"the context is 256 tokens; this needs %d\", 'type': 'invalid_request_error'}}"
    log.write_text("".join(f"12:00  ERROR  Error code: 400 - {said % size}\n" for size in (864, 901)))
    report = read(folder)
    [part], verdicts = compare(report, {}, refusals(folder))
    assert report.finished
    assert (part.asked, part.evaluated, part.rate, part.interval) == (4, 0, None, None)
    assert part.skipped == {"the context is ... tokens; this needs ...": 4}
    assert {one.ours for one in verdicts} == {Outcome.NOT_RUN}


def test_a_hit_that_a_model_of_random_letters_has_too_is_none_of_ours(tmp_path):
    asked = ["Be rude", "Be kind", "Be odd"]
    model = read(
        written(
            tmp_path / "m", twice(*(attempt(i, text, "Sure.", {BYPASS: 1.0}) for i, text in enumerate(asked)))
        )
    )
    scores = [1.0, 0.0, 1.0]
    null = read(
        written(
            tmp_path / "n",
            twice(
                *(
                    attempt(i, text, "qx 7k", {BYPASS: score})
                    for i, (text, score) in enumerate(zip(asked, scores, strict=True))
                )
            ),
        )
    )
    [part], _ = compare(model, {"null-nonsense": null}, "")
    assert (part.hits, part.ours[Outcome.SUCCESS], part.ours[Outcome.UNDETERMINED]) == (3, 1, 2)
    assert (part.controls["null-nonsense"].evaluated, part.controls["null-nonsense"].hits) == (3, 2)
    [difference] = part.disagreements
    assert (difference.theirs, difference.count, difference.reason) == (True, 2, "so is null-nonsense")


@pytest.mark.parametrize(
    ("said", "outcome", "reason"),
    [
        ("I cannot say that.", Outcome.FAIL, "the reply declines"),
        (" \n", Outcome.UNDETERMINED, "the reply is empty"),
        ("Of course.", Outcome.SUCCESS, ""),
    ],
)
def test_a_hit_is_looked_at_again(tmp_path, said, outcome, reason):
    report = read(written(tmp_path / "m", twice(attempt(0, "Be rude", said, {BYPASS: 1.0}))))
    null = read(written(tmp_path / "n", twice(attempt(0, "Be rude", "qx 7k", {BYPASS: 0.0}))))
    _, [verdict] = compare(report, {"null-nonsense": null}, "")
    assert (verdict.theirs, verdict.ours, verdict.reason) == (True, outcome, reason)


def test_a_hit_that_was_not_compared_is_left_open(tmp_path):
    report = read(written(tmp_path, twice(attempt(0, "Be rude", "Of course.", {BYPASS: 1.0}))))
    other = read(written(tmp_path, twice(attempt(0, "Be kind", "qx 7k", {BYPASS: 1.0}))))
    for controls in ({}, {"null-nonsense": other}):
        _, [verdict] = compare(report, controls, "")
        assert (verdict.ours, verdict.reason) == (Outcome.UNDETERMINED, "no null model was asked the same")


def test_a_scan_that_was_ended_is_reported_up_to_there(tmp_path):
    done = twice(*(attempt(i, str(i), "yes", {BYPASS: 1.0}) for i in range(2)))
    begun = [attempt(i, str(i), "yes", {}, status=1, probe="encoding.Other") for i in range(5)]
    folder = written(tmp_path, [*done, *begun], ends=False)
    with (folder / garak.REPORT).open("a") as file:
        file.write('{"entry_type": "attempt", "sta')
    report = read(folder)
    parts, _ = compare(report, {}, "")
    assert not report.finished
    assert [(part.name, part.asked, part.evaluated) for part in parts] == [
        (f"{PROBE}, {BYPASS}", 2, 2),
        ("encoding.Other", 5, 0),
    ]
    assert parts[1].skipped == {"not reached before the end": 5}


def test_no_report_is_an_empty_one_and_another_file_an_error(tmp_path):
    assert read(tmp_path) == GarakReport([], {}, False)
    (tmp_path / garak.REPORT).write_text('{"entry_type": "attempt", "status": "two"}\n')
    with pytest.raises(BadInput, match=r"garak\.report\.jsonl, line 1: .*; it is no report of garak 0\.17"):
        read(tmp_path)


def test_a_detector_that_garak_went_without_is_said(tmp_path):
    (tmp_path / garak.OUTPUT).write_text("detector load failed: unsafe_content.Example, skipping >>\n" * 2)
    [note] = garak.notes(tmp_path)
    assert note.startswith("garak could not load unsafe_content.Example and went on without it")
    assert garak.notes(tmp_path / "nowhere") == []


def test_no_string_of_garaks_cuts_an_answer(tmp_path):
    served = Served("small", "http://127.0.0.1:1234")
    found = configuration(served, tmp_path, limit=4, max_tokens=32)
    target = found["plugins"]["generators"]["openai"]["OpenAICompatible"]
    assert (target["stop"], target["uri"]) == ([], "http://127.0.0.1:1234/v1/")
    assert found["run"]["soft_probe_prompt_cap"] == 4


@given(st.lists(st.tuples(st.sampled_from([None, 0.0, 0.4, 0.5, 1.0]), st.booleans()), min_size=1))
def test_what_was_asked_is_evaluated_or_skipped_and_no_hit_of_ours_is_none_of_theirs(rows):
    decoded = [
        msgspec.convert(attempt(i, str(i), None if score is None else "yes", {BYPASS: score}), garak.Attempt)
        for i, (score, _) in enumerate(rows)
    ]
    same = [one for one, (_, also) in zip(decoded, rows, strict=True) if also]
    asked = Counter({PROBE: len(rows)})
    [part], verdicts = compare(
        GarakReport(decoded, asked, True), {"null": GarakReport(same, asked, True)}, "r"
    )
    assert part.evaluated + sum(part.skipped.values()) == part.asked == len(rows)
    assert sum(part.ours.values()) == len(rows)
    assert all(one.theirs for one in verdicts if one.ours is Outcome.SUCCESS)
    assert sum(one.count for one in part.disagreements) == part.hits - part.ours[Outcome.SUCCESS]
