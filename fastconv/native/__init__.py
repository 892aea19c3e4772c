"""What the machine is, and how compiled code is loaded into the process."""

from fastconv.native.link import ROOM, load, undefined
from fastconv.native.machine import KIND, SIZE, Machine, lanes_of, machine, machine_of, target_machine
from fastconv.native.own import read_own, write_own

__all__ = [
    "KIND",
    "ROOM",
    "SIZE",
    "Machine",
    "lanes_of",
    "load",
    "machine",
    "machine_of",
    "read_own",
    "target_machine",
    "undefined",
    "write_own",
]
