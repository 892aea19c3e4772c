"""Folders that are the user's own, and names that are free."""

from __future__ import annotations

import os
import stat

import pytest

from fastconv.files import cache_folder, numbered


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """A user without HOME and without an entry in the user database."""
    for name in ("HOME", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


pytestmark = pytest.mark.skipif(os.name != "posix", reason="of users and modes as POSIX has them")


def test_without_a_home_the_cache_is_a_private_temporary_folder(homeless):
    place = cache_folder()
    assert place == cache_folder() == homeless / f"fastconv-{os.getuid()}"
    assert stat.S_IMODE(place.stat().st_mode) == 0o700


@pytest.mark.parametrize("kind", ["open", "link", "file"])
def test_a_temporary_folder_that_others_may_write_is_refused(homeless, kind):
    place = homeless / f"fastconv-{os.getuid()}"
    if kind == "open":
        place.mkdir()
        place.chmod(0o770)
    elif kind == "link":
        (homeless / "other").mkdir(0o700)
        place.symlink_to(homeless / "other")
    else:
        place.touch(0o600)
    with pytest.raises(RuntimeError, match="set HOME or XDG_CACHE_HOME"):
        cache_folder()


def test_a_name_is_free_again_if_nothing_was_written(tmp_path):
    with pytest.raises(KeyError), numbered(tmp_path / "a.png"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
