"""The characters and tokens of a VNN-LIB file: opened, decoded and cut up in a stream.

Chunks of the file are scanned with one regular expression. Beside the tokens of SMT-LIB it knows the shapes that make
up nearly all of a large file (``(assert (<= X_12 0.5))``, ``(>= Y_0 Y_9)``, ``(declare-const X_12 Real)``) and hands
each over as one token; whatever is written otherwise (or lies across a chunk's end) comes as single tokens, with the
same meaning.
"""

from __future__ import annotations

import codecs
import gzip
import os
import re
import zlib
from collections.abc import Iterator
from typing import BinaryIO, cast

from boundflow_core.errors import PropertyError

__all__ = ["NUMBER", "VARIABLE", "ErrorAt", "Scanner", "locate", "read_all", "read_start"]

_CHUNK = 1 << 18

NUMBER = r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
VARIABLE = r"[XY]_(?:0|[1-9][0-9]{0,8})"

# Every character but white space starts some alternative, so what lies between two matches is white space.
_TOKEN = re.compile(
    rf"""
      (?P<fact>\(\s*assert\s*\(\s*(?P<fact_op>[<>]=)\s+(?P<fact_left>{VARIABLE})\s+(?P<fact_number>{NUMBER})\s*\)\s*\))
    | (?P<atom>\(\s*(?P<op>[<>]=?|=)\s+(?P<left>{VARIABLE})\s+(?:(?P<number>{NUMBER})|(?P<right>{VARIABLE}))\s*\))
    | (?P<close>\))
    | (?P<head>\(\s*(?P<head_op>assert|and|or)(?=[\s()]))
    | (?P<declare>\(\s*declare-const\s+(?P<name>{VARIABLE})\s+Real\s*\))
    | (?P<open>\()
    | (?P<word>[^\s()|";]+)
    | (?P<comment>;[^\r\n]*)
    | (?P<quoted>\|[^|]*\|)
    | (?P<string>"[^"]*(?:""[^"]*)*"(?!"))
    | (?P<unclosed>[|"][\s\S]*)
    """,
    re.VERBOSE | re.ASCII,
)
_MAY_GO_ON = frozenset({"word", "comment", "string", "unclosed"})


class ErrorAt(Exception):
    """What is wrong, and at which character of the file; turned into a PropertyError with line and column."""

    def __init__(self, offset: int, message: str) -> None:
        self.offset, self.message = offset, message
        super().__init__(message)


class Scanner:
    """Iterates over the tokens of a file as matches of one regular expression (``lastgroup`` is the kind).

    ``base`` is the offset of the current chunk: a token starts at character ``base + match.start()`` of the file.
    """

    def __init__(self, path: str) -> None:
        self.path, self.base = path, 0

    def __iter__(self) -> Iterator[re.Match[str]]:
        with _open(self.path) as file:
            decoder = codecs.getincrementaldecoder("utf-8-sig")("strict")
            buffer, final = "", False
            while not final:
                # At least as much as is left over: a token longer than a chunk still costs linear time.
                data = _read(file, self.path, max(_CHUNK, len(buffer)))
                final = not data
                buffer += self._decode(decoder, data, final, len(buffer))
                stop = rest = len(buffer)
                for match in _TOKEN.finditer(buffer):
                    if match.end() == stop and not final and match.lastgroup in _MAY_GO_ON:
                        rest = match.start()
                        break
                    if match.lastgroup != "comment":
                        yield match
                self.base += rest
                buffer = buffer[rest:]

    def _decode(self, decoder: codecs.IncrementalDecoder, data: bytes, final: bool, pending: int) -> str:
        try:
            return decoder.decode(data, final)
        except UnicodeDecodeError as error:
            good = len(error.object[: error.start].decode("utf-8", "replace"))
            byte = error.object[error.start]
            raise ErrorAt(self.base + pending + good, f"not a UTF-8 text file (byte 0x{byte:02x})") from None


def locate(path: str, offset: int) -> tuple[int, int]:
    """Line and column (from 1, in characters) of character ``offset``. Reads the file again: only errors need it."""
    decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
    line, column, left = 1, 1, offset
    with _open(path) as file:
        while left > 0 and (data := _read(file, path, _CHUNK)):
            text = decoder.decode(data)[:left]
            left -= len(text)
            newlines = text.count("\n")
            line += newlines
            column = len(text) - text.rfind("\n") if newlines else column + len(text)
    return line, column


def read_start(path: str) -> str:
    """The first characters of a file, as many as comments before the first command hardly exceed."""
    with _open(path) as file:
        return _read(file, path, 1 << 16).decode("utf-8-sig", "replace")


def read_all(path: str) -> str:
    """All characters of a file."""
    with _open(path) as file:
        return _read(file, path, -1).decode("utf-8-sig", "replace")


def _open(path: str) -> BinaryIO:
    """The file's bytes; gzip is recognized by its first bytes, whatever the name."""
    try:
        with open(path, "rb") as file:
            zipped = file.read(2) == b"\x1f\x8b"
        return cast(BinaryIO, gzip.open(path, "rb")) if zipped else open(path, "rb")
    except OSError as error:
        raise PropertyError(f"{path}: cannot be read: {_reason(error)}") from None


def _read(file: BinaryIO, path: str, size: int) -> bytes:
    try:
        return file.read(size)
    except (EOFError, zlib.error, OSError) as error:
        raise PropertyError(f"{path}: cannot be read: {_reason(error)}") from None


def _reason(error: Exception) -> str:
    return os.strerror(error.errno) if isinstance(error, OSError) and error.errno else f"damaged gzip file ({error})"
