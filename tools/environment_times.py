"""How long tox environments take, for the table of docs/development.md.

    .venv-tools/bin/python tools/environment_times.py docs/development.md [ENV...] [--log FILE] [--again]

Each environment (all that the table names, if none is given) is made anew and run, and run again: the first run holds
the set-up, with packages from where pip is told to look. With --log first runs are taken from what a `make test` in a
fresh clone has printed, and nothing runs but with --again, second runs. Rows of other environments stay as they are.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
from pathlib import Path

BEGIN, END = "<!-- table: written by tools/environment_times.py -->", "<!-- end of table -->"
HEAD = "| environment | first run | second run |\n| --- | ---: | ---: |\n"


def rows_of(page: str) -> dict[str, tuple[str, str]]:
    """First and second run by environment, from the page's table."""
    text = page.split(BEGIN)[1].split(END)[0]
    return {
        name: (first, second) for name, first, second in re.findall(r"^\| `(.+?)` \| (.*?) \| (.*?) \|$", text, re.M)
    }


def with_rows(page: str, rows: dict[str, tuple[str, str]]) -> str:
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    lines = "".join(f"| `{name}` | {first} | {second} |\n" for name, (first, second) in rows.items())
    return f"{before}{BEGIN}\n{HEAD}{lines}{END}{after}"


def seconds(environment: str, *options: str) -> str:
    """Wall-clock time of a run, or that it failed."""
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "tox", "run", "-q", *options, "-e", environment], check=False)
    return f"{time.perf_counter() - started:.0f} s" if done.returncode == 0 else "failed"


def logged(text: str) -> dict[str, str]:
    """Times by environment from tox's closing lines."""
    return {name: f"{float(time):.0f} s" for name, time in re.findall(r"^  (\S+): OK \(([\d.]+)[= ]", text, re.M)}


def main(path: Path, chosen: list[str], log: Path | None, again: bool) -> int:
    rows = rows_of(path.read_text())
    known = {} if log is None else logged(log.read_text())
    for name in chosen or list(known or rows):
        first, second = rows.get(name, ("", ""))
        first = known.get(name, first) if log is not None else seconds(name, "-r")
        rows[name] = first, seconds(name) if log is None or again else second
        path.write_text(with_rows(path.read_text(), rows))
    return 0 if all("failed" not in times for times in rows.values()) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", type=Path)
    parser.add_argument("environments", nargs="*", metavar="ENV")
    parser.add_argument(
        "--log", type=Path, metavar="FILE", help="first runs, as a make test in a fresh clone printed them"
    )
    parser.add_argument("--again", action="store_true", help="with --log: run each environment, for the second column")
    given = parser.parse_args()
    sys.exit(main(given.page, given.environments, given.log, given.again))
