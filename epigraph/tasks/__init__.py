"""Tasks: from files to rows to token ids. Imports no torch."""
