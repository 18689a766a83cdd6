"""What holds for every task, and what each asks."""

import operator
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crawltalk.core.errors import BadRecipe
from crawltalk.recipe.sft import TASKS as COUNTS
from crawltalk.tasks import TASK_OF, TASKS, Corpus, Task, check_counts, make_tasks, score
from crawltalk.tasks.arithmetic import SUM, WORKED, Arithmetic, counted
from crawltalk.tasks.identity import Identity
from crawltalk.tasks.recall import (
    FORMS,
    LEAST,
    PAGE_QUESTIONS,
    QUESTIONS,
    TEST_QUESTIONS,
    Flagship,
    Tail,
    question_about,
)
from crawltalk.tasks.refusal import Refusal
from crawltalk.tasks.spelling import Spelling
from support.corpora import small_corpus

every_task = pytest.mark.parametrize("task", TASKS, ids=[task.name for task in TASKS])
quick = settings(deadline=None, max_examples=25)
seeds = st.integers(0, 2**32)
SIGNS = {"+": operator.add, "-": operator.sub, "x": operator.mul}


@every_task
@quick
@given(drawn=seeds, first=seeds, second=seeds, difficulty=st.integers(1, 3), sentences=st.booleans())
def test_no_problem_of_the_test_is_trained_on(task: type[Task], drawn, first, second, difficulty, sentences):
    if task is Identity:
        return  # known by heart, and examined as trained
    made = task(small_corpus(drawn, sentences=sentences))
    train = made.problems(random.Random(first), difficulty, "train", 100)
    test = made.problems(random.Random(second), difficulty, "test", 100)
    assert {problem.prompt.lower() for problem in train}.isdisjoint(
        problem.prompt.lower() for problem in test
    )


@every_task
@quick
@given(
    seed=seeds,
    difficulty=st.integers(1, 4),
    split=st.sampled_from(["train", "test"]),
    sentences=st.booleans(),
)
def test_a_good_reply_scores_1_and_an_empty_one_0(task: type[Task], seed, difficulty, split, sentences):
    rng = random.Random(seed)
    made = task(small_corpus(seed, sentences=sentences))
    for problem in made.problems(rng, difficulty, split, 40):
        conversation = made.conversation(problem, rng)
        question, reply = conversation.messages
        assert (question.role, question.content) == ("user", problem.prompt)
        assert reply.role == "assistant"
        assert conversation.source == problem.task
        assert score(problem, reply.content) == 1
        assert score(problem, "") == 0


@every_task
@quick
@given(seed=seeds, split=st.sampled_from(["train", "test"]))
def test_the_same_seed_makes_the_same_problems(task: type[Task], seed, split):
    made = task(small_corpus(seed))
    assert list(made.problems(random.Random(seed), 2, split)) == list(
        made.problems(random.Random(seed), 2, split)
    )


@every_task
def test_a_task_says_what_it_is_about_and_asks_only_that(task: type[Task]):
    made = task(small_corpus())
    problems = [p for split in ("train", "test") for p in made.problems(random.Random(1), 1, split)]
    assert {problem.task for problem in problems} == set(task.about)
    assert all(TASK_OF[kind] is task for kind in task.about)


@every_task
@pytest.mark.parametrize("split", ["train", "test"])
def test_without_pages_and_words_only_rules_make_problems(task: type[Task], split):
    problems = list(task(Corpus()).problems(random.Random(1), 1, split, 10))
    assert not problems or task not in (Flagship, Refusal, Tail, Spelling)


def test_no_kind_of_problem_belongs_to_two_tasks():
    assert len(TASK_OF) == sum(len(task.about) for task in TASKS)
    assert len(make_tasks(Corpus())) == len(TASKS)


def test_the_recipe_names_tasks():
    check_counts(COUNTS)
    with pytest.raises(BadRecipe, match="no task is called 'spellings'; did you mean 'spelling'"):
        check_counts({"spellings": 3})
    with pytest.raises(BadRecipe, match=r"stages\.two\.config\.tasks\.spelling is -3; .* 0 for none"):
        check_counts({"spelling": -3}, "stages.two.config.tasks")
    check_counts({"tail": 0})
    with pytest.raises(BadRecipe, match=r"sft\.tasks\.tail is 5, but tail is only examined and never taught"):
        check_counts({"tail": 5})


def test_each_flagship_is_trained_on_in_several_forms_and_tested_in_another():
    made = Flagship(small_corpus())
    train = list(made.problems(random.Random(1), 1, "train"))
    assert len({problem.prompt.lower() for problem in train}) == 5 * (FORMS + 1)
    assert {*QUESTIONS}.isdisjoint(TEST_QUESTIONS)
    test = list(made.problems(random.Random(1), 1, "test"))
    assert len(test) == 5
    for problem in test:
        assert any(problem.prompt.startswith(form.split("{")[0]) for form in TEST_QUESTIONS)
    topic = next(problem for problem in train if problem.task == "topic")
    assert made.conversation(topic, random.Random(1)).messages[1].content == "Title 0 belongs to Things."
    lower = next(problem for problem in train if "title 1" in problem.prompt)
    assert made.conversation(lower, random.Random(1)).messages[1].content == "Title 1: thing of number 1."


def test_titles_are_declined_in_three_forms_and_others_are_kept_for_the_test():
    corpus = small_corpus(declined=25)  # 10 held-out titles and 15 of other topics
    assert [page.role for page in corpus.declined].count("heldout") == 10
    assert len(list(Refusal(corpus).problems(random.Random(1), 1, "train"))) == 3 * 25
    assert len(list(Refusal(corpus).problems(random.Random(1), 1, "test"))) == 10
    assert len(small_corpus(declined=0).declined) == 10


def test_pages_read_a_few_times_are_only_tested():
    assert not list(Tail(small_corpus()).problems(random.Random(1), 1, "train", 5))
    assert len(list(Tail(small_corpus()).problems(random.Random(1), 1, "test"))) == 30


@quick
@given(seed=seeds, difficulty=st.integers(1, 4))
def test_sums_are_right_and_grow_with_the_difficulty(seed, difficulty):
    for problem in Arithmetic(Corpus()).problems(random.Random(seed), difficulty, "train", 20):
        stated = SUM.search(problem.prompt)
        assert stated
        left, sign, right = stated[0].split()
        assert SIGNS[sign](int(left), int(right)) == int(problem.answer)
        assert max(int(left), int(right)) <= 20 * 10 ** (difficulty - 1)


@quick
@given(left=st.integers(0, 20000), right=st.integers(0, 20000), sign=st.sampled_from("+-"))
def test_counting_ends_with_the_result_and_nothing_left(left, sign, right):
    if sign == "-" and left < right:
        left, right = right, left
    stated, *lines = counted(left, sign, right).split("\n")
    assert stated.split()[1] == sign
    last = lines[-1].split() if lines else [stated.split()[0], "0"]
    assert [int(number) for number in last] == [SIGNS[sign](left, right), 0]


@pytest.mark.parametrize(
    ("sum_", "steps"),
    [
        ((5, "+", 17), ["5 + 17", *(f"{5 + step} {17 - step}" for step in range(1, 18))]),
        ((40, "-", 21), ["40 - 21", "30 11", *(f"{30 - step} {11 - step}" for step in range(1, 12))]),
        ((3, "x", 7), ["7 x 3", "7 2", "14 1", "21 0"]),
        ((9, "x", 0), ["9 x 0"]),
    ],
)
def test_a_sum_is_counted_out_step_by_step(sum_, steps):
    assert counted(*sum_).split("\n") == steps


def test_some_sums_are_counted_out_before_the_answer():
    made, rng = Arithmetic(Corpus()), random.Random(1)
    replies = [
        str(made.conversation(problem, rng).messages[1].content) for problem in made.problems(rng, count=300)
    ]
    share = sum(reply.startswith("<think>") for reply in replies) / len(replies)
    assert share == pytest.approx(WORKED, abs=0.1)


def test_spelled_words_are_spelled_right():
    for problem in Spelling(small_corpus()).problems(random.Random(1), 1, "train", 300):
        letters, _, count = problem.answer.partition(":")
        word = letters.replace("-", "")
        assert letters == "-".join(word)
        assert word in problem.prompt
        assert not count or count == f" {len(word)} letters."


def test_new_words_are_never_spelled_in_training():
    made = Spelling(small_corpus())
    trained = {problem.answer.split(":")[0] for problem in made.problems(random.Random(1), 1, "train", 500)}
    for problem in made.problems(random.Random(1), 1, "test"):
        assert (problem.answer in trained) == (problem.task == "spelling")


def test_the_assistant_knows_its_name():
    made = Identity(Corpus(assistant="Ada"))
    assert "My name is Ada." in [problem.answer for problem in made.problems(random.Random(1), 1, "test")]


def test_of_a_page_that_is_described_by_a_sentence_it_is_asked_what_the_page_says():
    corpus = small_corpus(sentences=True)
    task, rng = Flagship(corpus), random.Random(0)
    train = list(task.problems(rng))
    assert {problem.task for problem in train} == {"flagship"}  # a folder of a site is no field of knowledge
    asked = {problem.prompt.lower() for problem in train}
    assert asked == {form.format(page.title).lower() for form in PAGE_QUESTIONS for page in corpus.flagships}
    assert len(train) == LEAST  # five pages: each question is asked ten times
    question, reply = task.conversation(train[0], rng).messages
    assert "Title 0".lower() in str(question.content).lower()
    assert reply.content == "Title 0: This is what page 0 says."
    assert question_about("Title 0", "This is what page 0 says.") == "What does the page Title 0 say?"
    assert question_about("Gold", "chemical element") == "What is Gold?"


def test_pages_that_were_read_a_few_times_are_declined_where_there_are_no_others():
    corpus = small_corpus(declined=1000, sentences=True)
    declined, tail = ({page.id for page in pages} for pages in (corpus.declined, corpus.tail))
    assert len(declined) == 10 + 50 + 15  # half of the held-out, all outside, half of those read a few times
    assert len(tail) == 15
    assert declined.isdisjoint(tail)
    assert len(small_corpus(declined=1000).declined) == 10 + 50
