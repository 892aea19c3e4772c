"""Tables of reports: text that fits a terminal, HTML for a notebook."""

from fastconv.tables.table import Shown, Table, listed, terminal_width

__all__ = ["Shown", "Table", "listed", "terminal_width"]
