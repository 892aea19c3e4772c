"""Files of the user: the cache folder, files that are whole or not there, names that are free; and packages that an extra installs."""

from fastconv.files.extra import imported
from fastconv.files.whole import cache_folder, numbered, replacing, write_whole

__all__ = ["cache_folder", "imported", "numbered", "replacing", "write_whole"]
