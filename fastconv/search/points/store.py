"""Store finished work in SQLite: each unit is committed as it ends, under the hash of its specification."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import uuid
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any

VERSION = 2
"""Version of the tables and of the meaning of units; other versions are rejected."""

_APPLICATION = 0x46434F4E
_SCHEMA = """
CREATE TABLE unit (
  key TEXT PRIMARY KEY NOT NULL,
  spec TEXT NOT NULL,
  result TEXT NOT NULL
) WITHOUT ROWID;
"""


def key_of(spec: dict[str, Any]) -> str:
    """Return the hash of a unit's specification.

    Examples
    --------
    >>> key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(_canonical(spec).encode()).hexdigest()


def _canonical(data: Any) -> str:
    return json.dumps(data, sort_keys=True, separators=(",", ":"))


class Store:
    """Finished units by key, in a file or, without a path, in memory.

    A unit is committed before the next is requested. If a process is killed at any moment, the next one resumes from
    the store. Several processes may use one file: the first result of a unit is kept.

    Parameters
    ----------
    path : str or path, optional
        The file; created if it does not exist.

    Raises
    ------
    ValueError
        For a file that is not a store, is damaged, or has another version; it is left unchanged.

    Examples
    --------
    >>> with Store(None) as store:
    ...     store.put({"unit": 1}, {"sum": 2})
    ...     store.get({"unit": 1})
    {'sum': 2}
    """

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.path = None if path is None else Path(path)
        if self.path is None:
            self._db = sqlite3.connect(":memory:")
            self._db.executescript(_SCHEMA)
            return
        if not self.path.exists():
            _create(self.path)
        _check(self.path)
        self._db = sqlite3.connect(self.path, timeout=60, isolation_level=None)
        self._db.execute("PRAGMA synchronous=FULL")

    def get(self, spec: dict[str, Any]) -> dict[str, Any] | None:
        """Return the result of a unit, None if it is not finished."""
        row = self._db.execute("SELECT result FROM unit WHERE key = ?", (key_of(spec),)).fetchone()
        return None if row is None else dict(json.loads(row[0]))

    def put(self, spec: dict[str, Any], result: dict[str, Any]) -> None:
        """Commit the result of a unit; an earlier result of another process is kept."""
        self._db.execute("INSERT OR IGNORE INTO unit VALUES (?, ?, ?)", (key_of(spec), _canonical(spec), _canonical(result)))
        self._db.commit()

    def merge(self, others: Iterable[str | os.PathLike[str]]) -> int:
        """Copy the units of other stores, such as shards from other machines; return how many were new."""
        before = self._db.total_changes
        for other in others:
            if not Path(other).exists():
                raise ValueError(f"{other} does not exist: give a store that a search has written")
            with Store(other) as source:
                for row in source._db.execute("SELECT key, spec, result FROM unit ORDER BY key"):
                    self._db.execute("INSERT OR IGNORE INTO unit VALUES (?, ?, ?)", row)
        self._db.commit()
        return self._db.total_changes - before

    def __len__(self) -> int:
        return int(self._db.execute("SELECT count(*) FROM unit").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None) -> None:
        self.close()


def _create(path: Path) -> None:
    """Write an empty store under a temporary name, then link it: no process sees an incomplete file."""
    if not path.parent.is_dir():
        raise ValueError(f"{path.parent} is not a folder: give a path in one that exists")
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        db = sqlite3.connect(temporary)
        db.executescript(f"PRAGMA application_id={_APPLICATION}; PRAGMA user_version={VERSION};{_SCHEMA}PRAGMA journal_mode=WAL;")
        db.close()
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass  # another process was first
    except sqlite3.Error as e:
        raise ValueError(f"cannot write the store {path}: {e}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _check(path: Path) -> None:
    """Reject a file that is not a store of this version, without writing to it."""
    if not path.is_file():
        raise ValueError(f"{path} is not a file: give the store another name")
    application, version, problem = _seen(path)
    advice = "it is left unchanged; give another name to start a new search"
    if application != _APPLICATION:
        raise ValueError(f"{path} is not a store of searches, or is damaged: {advice}")
    if version != VERSION:
        raise ValueError(f"{path} is a store of version {version}, this is version {VERSION}: {advice}")
    if problem != "ok":
        raise ValueError(f"the store {path} is damaged ({' '.join(problem.split())[:80]}): {advice}")


def _seen(path: Path) -> tuple[int | None, int | None, str]:
    """Return the application and version of a database, and its problem, "ok" if none.

    Only SQLite opens it: closing a file drops all locks of this process on it, including those of another open store. A third
    process would then delete the log of that store. A file that no process has open is read as immutable, which creates no other
    files. If a process changes it meanwhile, its log appears, and the check is repeated under locks.
    """
    log = path.with_name(f"{path.name}-wal")
    for mode in ("mode=ro" if log.exists() else "immutable=1", "mode=ro"):
        application = version = None
        try:
            db = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=60)
            try:
                application, version = (int(db.execute(f"PRAGMA {name}").fetchone()[0]) for name in ("application_id", "user_version"))
                problem = str(db.execute("PRAGMA quick_check(1)").fetchone()[0])
                db.execute("SELECT key, spec, result FROM unit LIMIT 1").fetchone()
            finally:
                db.close()
        except sqlite3.Error as e:
            problem = str(e)
        if problem == "ok" or not log.exists():
            break
    return application, version, problem
