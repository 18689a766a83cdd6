"""What AgentDojo's suites ask and how its authors solve it, as JSON on standard output.

This file runs in AgentDojo's environment, by itself: `python -I agentdojo_tasks.py v1.2.2`.
"""

import json
import sys

from agentdojo.task_suite.load_suites import get_suites


def main() -> None:
    """Print suite -> tools, and task -> what is asked, the calls that solve it, and the answer."""
    found = {}
    for name, suite in get_suites(sys.argv[1]).items():
        kinds = {"users": suite.user_tasks, "injections": suite.injection_tasks}
        found[name] = {"tools": len(suite.tools)} | {
            kind: {key: solved(suite, task) for key, task in tasks.items()} for kind, tasks in kinds.items()
        }
    json.dump(found, sys.stdout, default=str)


def solved(suite, task):
    """A task with its solution."""
    environment = suite.load_and_inject_default_environment({})
    if hasattr(task, "init_environment"):
        environment = task.init_environment(environment)
    return {
        "asks": task.PROMPT if hasattr(task, "PROMPT") else task.GOAL,
        "calls": [
            {"name": call.function, "arguments": dict(call.args)} for call in task.ground_truth(environment)
        ],
        "answer": str(task.GROUND_TRUTH_OUTPUT),
    }


if __name__ == "__main__":
    main()
