"""Whether a statement of the `query` command only reads.

The law: the engine's own readonly mode decides; here is refused only what that mode lets through when the engine runs inside
a process: writing files (INTO OUTFILE), reading them (the function file), Python objects (the table function Python), and
whatever acts on other statements (KILL, SYSTEM, SET). It keeps users from mistakes; it is no wall around them.
"""

import re
from typing import Final

from collector.store.contract import StoreError

# Strings, quoted names, comments and heredocs as ClickHouse's lexer has them; a word; a number; any other character.
_TOKEN: Final = re.compile(
    r"""
      (?P<space> \s+ | --[^\n]* | \#[!\ ][^\n]* | /\*.*?(?:\*/|\Z) )
    | (?P<text>  '(?:[^'\\]|\\.|'')*' | \$(?P<tag>\w*)\$.*?\$(?P=tag)\$ )
    | (?P<name>  `(?:[^`\\]|\\.|``)*` | "(?:[^"\\]|\\.|"")*" | [^\W\d]\w* )
    | (?P<other> [\d.]+ | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_READING: Final = frozenset(["SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS", "(", "VALUES"])
_REFUSED_FUNCTIONS: Final = frozenset(["FILE", "PYTHON"])
_FORMAT: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def reading_statement(sql: str, format_: str) -> str:
    """The one statement of `sql` with its FORMAT clause: its own if it has one, else `format_`. Raises StoreError."""
    tokens = [match for match in _TOKEN.finditer(sql) if match["space"] is None]
    while tokens and tokens[-1][0] == ";":
        tokens.pop()
    words = [token[0].strip('`"').upper() if token["name"] else token[0] for token in tokens]
    if not words:
        raise StoreError("the query is empty")
    if words[0] not in _READING:
        raise StoreError(f"only statements that read can be run here, not {words[0]}")
    if ";" in words:
        raise StoreError("one statement at a time: there is text after a semicolon")
    for word, token, following in zip(words, tokens, [*words[1:], ""], strict=True):
        if token["name"] and following == "(" and word in _REFUSED_FUNCTIONS:
            raise StoreError(f"{token[0]}() is not allowed here: queries read the store, nothing else")
        if word == "INTO" and following == "OUTFILE":
            raise StoreError("INTO OUTFILE is not allowed here: write the answer to a file by redirecting it")
    body = sql[tokens[0].start() : tokens[-1].end()]
    if len(words) > 2 and words[-2] == "FORMAT" and tokens[-1]["name"]:
        return body
    if not _FORMAT.fullmatch(format_):
        raise StoreError(f"not the name of a format: {format_!r}")
    return f"{body}\nFORMAT {format_}"
