"""The networks that fastconv knows, and the files their weights come from."""
