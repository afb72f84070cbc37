"""The command line ``boundflow``: `main` is the program, every other file with a ``command`` is one subcommand.

Subcommands are looked up in the registry, so plugins bring theirs in the same way, and are imported when called.
"""
