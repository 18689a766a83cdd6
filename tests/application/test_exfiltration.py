"""What leaves the page and its tools, in a browser: a handful of cells. `crawltalk exfiltration` measures all."""

import random
import shutil

import pytest

from crawltalk.application.target import PRODUCT, Application
from crawltalk.application.tasks import TASKS, do
from crawltalk.redteam.attacks.exfiltration import ATTACKS, ENTRANCES, goals
from crawltalk.redteam.frame import Outcome, judge
from crawltalk.redteam.obedient import StandIn

pytestmark = pytest.mark.slow
WAYS = ("markdown image", "name look-up", "link", "fetch by a relay")
WHAT = {goal.id: goal for goal in goals()}
CELLS = [WHAT[name] for name in ("fetched page, encoded", "name of a document, split", "picture, plain")]


@pytest.fixture(scope="module")
def application():
    if shutil.which("chromium") is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    with Application(StandIn()) as entered:
        yield entered


def outcomes(application, defense, ways=WAYS, cells=CELLS):
    target, found = defense.apply(application), {}
    attacks = [attack for attack in ATTACKS if attack.name in ways]
    asked = [
        (attack, goal, next(iter(attack.run(goal, target, random.Random(0)))))
        for attack in attacks
        for goal in cells
    ]
    replies = target.answer([prompt for _, _, prompt in asked])
    for (attack, goal, prompt), reply in zip(asked, replies, strict=True):
        found[attack.name, goal.id] = judge(goal.oracle, prompt, reply).outcome
    return found


def test_without_defences_secrets_leave_by_every_way(application):
    undefended = application.defenses[0]
    assert undefended.name == "none"
    assert set(outcomes(application, undefended).values()) == {Outcome.SUCCESS}


def test_behind_those_of_the_product_none_leaves(application):
    assert application.product.name == PRODUCT
    assert set(outcomes(application, application.product).values()) == {Outcome.FAIL}


def test_a_person_who_agrees_to_all_that_the_page_asks_sends_the_secret(application):
    found = outcomes(application, application.confirmed, ("link", "fetch by a relay"), CELLS[:1])
    assert set(found.values()) == {Outcome.SUCCESS}


@pytest.mark.parametrize(
    "task",
    [task for task in TASKS if task.confirms or task.picture or "own link" in task.name],
    ids=lambda task: task.name,
)
def test_legitimate_tasks_stay_possible(application, task):
    done = do(task, application)
    assert done.kept, done.reason


def test_every_way_has_a_goal_for_each_entrance_and_form():
    assert len(ENTRANCES) >= 6 and len(ATTACKS) >= 11 and len(WHAT) == 3 * len(ENTRANCES)
    assert len({goal.oracle.token for goal in WHAT.values()}) == len(WHAT)
    assert len(TASKS) >= 20
