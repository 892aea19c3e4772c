"""The networks that fastconv knows, and the files of their weights."""
