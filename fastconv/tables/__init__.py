"""Tables of reports: text that fits a terminal, HTML for a notebook."""

from fastconv.tables.table import Shown, Table, terminal_width

__all__ = ["Shown", "Table", "terminal_width"]
