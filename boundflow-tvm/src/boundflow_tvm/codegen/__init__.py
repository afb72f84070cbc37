"""From operations of a plan to loop nests: indices, scalar code, and one file per kind of operation."""
