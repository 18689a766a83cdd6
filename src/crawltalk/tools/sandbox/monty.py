"""Python in Monty: an interpreter without any way out, for a part of the language (pydantic-monty 1.4.0).

A program there has no files, network, processes, clock to wait on or environment: none of the functions that would give
them exist unless the host hands them in, and nothing is handed in. It runs in a worker process, which is killed if it
does not keep to its limits. It knows a few modules of the standard library (math, re, json, datetime, ...), and it
starts in a millisecond. By default Monty has no limits; here each one is set.
"""

from threading import Lock
from typing import Any

from crawltalk.tools.sandbox.outcome import Limits, Outcome

NAME = "Monty"
_HEAP = 64 << 20
_LAST_LINES = 40
"""Lines from the end among which the last expression is looked for."""


class MontySandbox:
    """A pool of one worker, which starts at the first run. Runs of several threads take turns."""

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._pool: Any = None
        self._lock = Lock()

    @property
    def layers(self) -> tuple[str, ...]:
        """What keeps a program in."""
        return ("an interpreter without system calls", "a process of its own", "limits")

    def run(self, code: str) -> Outcome:
        """Run a program."""
        import pydantic_monty as monty

        with self._lock:
            try:
                return self._run(monty, code)
            except monty.MontyCrashedError:
                return Outcome(output="", problem=f"the program was ended after {self.limits.wall:g} s")

    def _run(self, monty: Any, code: str) -> Outcome:
        seconds, output = self.limits.wall, monty.CollectString(max_bytes=self.limits.output)
        limits = monty.ResourceLimits(
            max_feed_duration_secs=seconds,
            max_turn_duration_secs=seconds,
            max_memory=min(self.limits.memory, _HEAP),
            gc_interval=10_000,
            max_recursion_depth=self.limits.recursion,
            max_suspensions=100,
            max_total_sleep_secs=0.0,
        )
        policy = monty.OSPolicy(sleep="zero", process_time="zero", timezone="utc")
        try:
            with self._started(monty).checkout(limits=limits, os_policy=policy) as session:
                _feed(monty, session, code, output)
        except (monty.MontySyntaxError, monty.MontyRuntimeError) as error:
            return self._failed(error.display("type-msg"), error.display("traceback"), output.output)
        return Outcome(output=output.output)

    def _failed(self, message: str, traceback: str, output: str) -> Outcome:
        if message.startswith("MemoryError") and len(output) >= self.limits.output // 2:
            problem = f"the program was ended: it wrote more than {self.limits.output:,} bytes"
            return Outcome(output=output, problem=problem, truncated=True)
        if message.startswith(
            ("MemoryError: memory limit", "MemoryError: the worker", "TimeoutError: feed time")
        ):
            return Outcome(output=output, problem=f"the program was ended: {message.partition(': ')[2]}")
        lines = traceback.splitlines()
        return Outcome(output="\n".join([*filter(None, [output.rstrip("\n")]), *lines[-6:]]), problem=message)

    def _started(self, monty: Any) -> Any:
        if self._pool is None:
            pool = monty.Monty(
                min_processes=1,
                max_processes=1,
                request_timeout=self.limits.wall + 2,
                feed_duration_limit_grace=1.0,
                turn_duration_limit_grace=1.0,
                max_checkouts_per_worker=200,
            )
            self._pool = pool.__enter__()
        return self._pool

    def close(self) -> None:
        """End the worker."""
        with self._lock:
            if self._pool is not None:
                self._pool.__exit__(None, None, None)
                self._pool = None


def _feed(monty: Any, session: Any, code: str, output: Any) -> None:
    """Run the program; if it ends with an expression, print its value. No value crosses into this process, since one
    that is small there (a list that holds itself many times) may be huge as a text here.
    """
    lines = code.rstrip().splitlines()
    for start in reversed(range(max(0, len(lines) - _LAST_LINES), len(lines))):
        last = "\n".join(lines[start:])
        if (
            not last
            or last[0].isspace()
            or last[0] == "#"
            or not _parses(monty, session, f"(lambda: (\n{last}\n))\nNone", output)
        ):
            continue
        shown = f"_ = (\n{last}\n)\nif _ is not None:\n    print(repr(_))\nNone"
        try:
            session.feed_run("\n".join([*lines[:start], shown]), print_callback=output)
            return
        except monty.MontySyntaxError:  # the last lines belong to what stands before
            break
    session.feed_run(f"{code}\nNone", print_callback=output)


def _parses(monty: Any, session: Any, code: str, output: Any) -> bool:
    try:
        session.feed_run(code, print_callback=output)
    except monty.MontySyntaxError:
        return False
    return True
