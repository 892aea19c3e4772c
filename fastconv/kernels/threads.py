"""Run a compiled function on several threads: threads of our own, which take items as they come.

A team that waits at a barrier waits for its latest member, who on a busy machine may not even have been woken; here
whoever has time computes, and a member who comes too late finds the job closed. Between jobs members spin for a
tenth of a millisecond, so that the next layer of a network finds them awake, and then sleep.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Sequence
from enum import IntEnum, auto
from functools import cache
from typing import Any

import numpy as np

SPIN = 300_000
"""Cycles that a thread without work stays awake."""

JOB = 11
"""Integers of a job: function, members, bytes of a workspace, and the function's eight arguments."""


class Word(IntEnum):
    """Places in the block that the members share, eight integers apart: a cache line each."""

    def _generate_next_value_(name, start, count, last_values):  # type: ignore[no-untyped-def,override] # noqa: N805
        return 8 * count

    NUMBER = auto()  # of the newest job
    OPEN = auto()  # number of the job that may be entered
    INSIDE = auto()  # members that are at it
    SLEEPING = auto()
    STOP = auto()
    JOB = auto()
    END = auto()


def run(function: Any, chunks: int, workspace: int, arguments: Sequence[int]) -> None:
    """Call a compiled function in at most `chunks` threads at once, each with a workspace of its own.

    Parameters
    ----------
    function : compiled function
        Takes description, counter, items, x, u, bias, y and the address of a workspace, and claims items until none is left.
    chunks : int
        Members of the team, this thread included. If the team is at another job, this thread does it all.
    workspace : int
        Bytes from the workspace of a member to the next one's.
    arguments : sequence of int
        The function's; the last one is the address of the first workspace.
    """
    members = min(chunks, processors())
    if members <= 1 or not team().run(function.address, members, workspace, arguments):
        function.ctypes(*arguments)


@cache
def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Team:
    """Threads that wait for jobs; made when the first job comes, more when a job wants more."""

    def __init__(self) -> None:
        from fastconv.kernels.members import lead, serve

        self.words = np.zeros(int(Word.END) + 16, np.int64)
        self.at = self.words.ctypes.data
        self.busy = threading.Lock()
        self.threads: list[threading.Thread] = []
        self.lead, self.serve = lead.ctypes, serve.ctypes

    def run(self, address: int, members: int, workspace: int, arguments: Sequence[int]) -> bool:
        """Do a job, or return False if the team is at another."""
        if not self.busy.acquire(blocking=False):
            return False
        try:
            while len(self.threads) < members - 1:
                index = len(self.threads) + 1
                thread = threading.Thread(target=self.serve, args=(self.at, index), name=f"fastconv-{index}", daemon=True)
                thread.start()
                self.threads.append(thread)
            self.words[Word.JOB : Word.JOB + JOB] = (address, members, workspace, *arguments)
            self.lead(self.at)
        finally:
            self.busy.release()
        return True

    def stop(self) -> None:
        """Send the members home: before the interpreter takes their memory away."""
        with self.busy:
            self.words[Word.STOP] = 1
            self.words[Word.JOB : Word.JOB + JOB] = 0
            self.lead(self.at)
            for thread in self.threads:
                thread.join()


@cache
def team() -> Team:
    """Return this process's team."""
    import atexit

    made = Team()
    atexit.register(made.stop)
    return made


if hasattr(os, "register_at_fork"):  # a child has the memory of its parent, but not its threads
    os.register_at_fork(after_in_child=team.cache_clear)

WAITS = sys.platform == "linux"
"""Elsewhere there is no futex: members without work yield instead of sleeping."""
