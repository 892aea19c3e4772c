"""Files of the user: the cache folder, atomic writes, free names; and imports of optional packages."""

from fastconv.files.extra import imported
from fastconv.files.whole import cache_folder, numbered, replacing, write_whole

__all__ = ["cache_folder", "imported", "numbered", "replacing", "write_whole"]
