"""Describe the machine, and compile, load and run native code."""

from fastconv.native.digests import digest_of
from fastconv.native.link import ROOM, load, undefined
from fastconv.native.machine import KIND, SIZE, Machine, lanes_of, machine, machine_of, target_machine
from fastconv.native.memory import free_memory, lasting, round_up
from fastconv.native.objects import Compiled, compiled
from fastconv.native.own import read_own, write_own
from fastconv.native.records import described, record
from fastconv.native.remember import Kept, remembered
from fastconv.native.threads import APART, COUNTER, NOTHING, Job, Pool, flush_subnormals, flushes, memory, processors, run_all, threads_of

__all__ = [
    "APART",
    "COUNTER",
    "Compiled",
    "Job",
    "KIND",
    "Machine",
    "NOTHING",
    "Kept",
    "Pool",
    "ROOM",
    "SIZE",
    "compiled",
    "described",
    "digest_of",
    "flush_subnormals",
    "flushes",
    "free_memory",
    "lanes_of",
    "lasting",
    "load",
    "machine",
    "machine_of",
    "memory",
    "processors",
    "read_own",
    "record",
    "remembered",
    "round_up",
    "run_all",
    "target_machine",
    "threads_of",
    "undefined",
    "write_own",
]
