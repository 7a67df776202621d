"""Check that a statement of the `query` command only reads the store. ClickHouse's own parser decides; nothing is parsed here.

The engine's `readonly` mode refuses writes, changes of settings, and table functions that reach files, networks or programs.
This module refuses statements that `readonly` allows: INTO OUTFILE, functions that read files or call other systems, EXISTS
(which also looks at files), and statements that act on others (KILL, SYSTEM, SET).

Invariants:
1. ClickHouse's formatter writes the parsed statement as text. All of that text is checked, and that text runs: the syntax tree
   of EXPLAIN AST lacks parts (APPLY, SHOW … WHERE). So no spelling (escapes, comments, quotes, letter case) passes the check as
   one statement and runs as another. (test_no_spelling_reads_a_file)
2. A table function is refused unless it is listed here. The engine reports which names are table functions, so a function that
   a later version adds is refused. (test_table_functions_that_reach_out_are_refused)
3. An ordinary function that is refused may not be named either, even if it is not called, since `arrayMap` and APPLY take names
   of functions. (test_no_spelling_reads_a_file)
4. No statement of the check itself contains the user's text outside of a string literal, until INTO OUTFILE is excluded.
   (test_nothing_is_written)
"""

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from collector.store import tenant_view
from collector.store.contract import StoreError

# Table functions that generate rows, or read tables and dictionaries of this store. `cluster` reads tables of servers that the
# operator of ClickHouse has named in its configuration.
TABLE_FUNCTIONS: Final = frozenset(
    {
        "cluster",
        "clusterallreplicas",
        "dictionary",
        "format",
        "fuzzjson",
        "fuzzquery",
        "generate_series",
        "generaterandom",
        "generateseries",
        "loop",
        "merge",
        "mergetreeanalyzeindexes",
        "mergetreecodecblockcounts",
        "mergetreeindex",
        "mergetreeprojection",
        "mergetreetextindex",
        "null",
        "numbers",
        "numbers_mt",
        "primes",
        "sqlstandardvalues",
        "values",
        "view",
        "viewexplain",
        "viewifpermitted",
        "zeros",
        "zeros_mt",
    }
)
# Ordinary functions that read files or ask other systems, which readonly mode allows.
_REFUSED_FUNCTIONS: Final = frozenset({"catboostevaluate", "file", "generateserialid", "reversednsquery"})
# A table function of the embedded engine that system.table_functions does not list.
_REFUSED_TABLE_FUNCTIONS: Final = frozenset({"python"})
_TABLE_FUNCTIONS: Final = "SELECT lower(name) FROM system.table_functions FORMAT TSVRaw"
# Functions that run programs of the operator. If the engine has categories, also functions that call an external model.
_FUNCTIONS: Final = "SELECT lower(name) FROM system.functions WHERE origin = 'ExecutableUserDefined'{or_category} FORMAT TSVRaw"
_AI_CATEGORY: Final = " OR categories = 'AI'"
_HAS_CATEGORIES: Final = (
    "SELECT count() FROM system.columns WHERE database = 'system' AND table = 'functions' AND name = 'categories' FORMAT TSVRaw"
)

# Kinds of statement, by the first word of the syntax tree, in addition to those that begin with Show.
_READING: Final = frozenset({"SelectWithUnionQuery", "SelectIntersectExceptQuery", "SelectQuery", "Explain", "DescribeQuery"})
# The formatter's text: strings and quoted names in these forms only, no comments; words; anything else, by characters.
_TOKEN: Final = re.compile(
    r"""(?P<text>'(?:[^'\\]|\\.|'')*')|(?P<name>`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*"|[^\W\d]\w*)|(?P<other>\d[\w.]*|\S)""",
    re.DOTALL,
)
_QUOTED: Final = re.compile(r"""'(?:[^'\\]|\\.|'')*'|`(?:[^`\\]|\\.|``)*`|"(?:[^"\\]|\\.|"")*\"""", re.DOTALL)
_OUTFILE: Final = re.compile(r"\bINTO\s+OUTFILE\b", re.IGNORECASE)
_FORMAT_CLAUSE: Final = re.compile(r"\sFORMAT ([A-Za-z]\w*)(?:\s+SETTINGS\s.*)?\Z", re.DOTALL)
_FORMAT: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_ESCAPED: Final = str.maketrans({"\\": "\\\\", "'": "\\'", "\0": "\\0"})
# The part of the formatter's error that repeats the whole statement. It is removed, since the user knows the statement.
_IN_SCOPE: Final = re.compile(r":? In scope SELECT formatQuerySingleLine\(.*?(?=\(\w+\)$|\Z)", re.DOTALL)

# Runs one statement in a session that only reads, and returns the answer in the format of its FORMAT clause. Raises StoreError.
Run = Callable[[str], bytes]


class RefusedFunctions(NamedTuple):
    """Functions that statements may not use, in lower case. `calls` may not be called. `names` may not even be named, since a
    name could be passed to another function. `tenants_calls` may not be called by a statement of a tenant."""

    calls: frozenset[str]
    names: frozenset[str]
    tenants_calls: frozenset[str]


def refused_functions(run: Run) -> RefusedFunctions:
    """Return the refused functions of this engine. Raises StoreError."""
    has_categories = run(_HAS_CATEGORIES).strip() == b"1"
    functions = run(_FUNCTIONS.format(or_category=_AI_CATEGORY if has_categories else ""))
    names = _REFUSED_FUNCTIONS | frozenset(functions.decode().split())
    known = _REFUSED_TABLE_FUNCTIONS | TABLE_FUNCTIONS | frozenset(run(_TABLE_FUNCTIONS).decode().split())
    tables = known - TABLE_FUNCTIONS
    return RefusedFunctions(names | tables, names, names | tenant_view.refused_table_functions(known))


def reading_statement(sql: str, format_: str, run: Run, refused: RefusedFunctions, *, for_tenant: bool = False) -> str:
    """Return the one statement of `sql` in the form in which it may run, with its own FORMAT clause, or else `format_`.

    `refused` is from refused_functions. `for_tenant` is whether it will run in a session that shows one tenant's rows. Raises
    StoreError."""
    if not _FORMAT.fullmatch(format_):
        raise StoreError(f"not the name of a format: {format_!r}")
    text = _formatted(sql, run)
    unquoted = _QUOTED.sub(lambda quoted: "_" * len(quoted[0]), text)
    if _OUTFILE.search(unquoted):
        raise StoreError("INTO OUTFILE is not allowed here: redirect the output of the command to a file")
    if (name := _refused_in(text, refused.tenants_calls if for_tenant else refused.calls, refused.names)) is not None:
        raise StoreError(f"{name}() is not allowed here: a query reads this store, no files, networks or programs")
    own = _FORMAT_CLAUSE.search(unquoted)
    body = text[: own.start()] if own else text
    tree = run(f"EXPLAIN AST {body} FORMAT TSVRaw").decode(errors="replace")
    kind = tree.split(maxsplit=1)[0] if tree.strip() else ""
    if kind not in _READING and not kind.startswith("Show"):
        raise StoreError(f"only statements that read can be run here, not {text.split(maxsplit=1)[0].upper()}")
    if for_tenant:
        tenant_view.check(unquoted, kind)
    return text if own else f"{text}\nFORMAT {format_}"


def format_of(statement: str) -> str:
    """Return the format of a statement that `reading_statement` returned."""
    unquoted = _QUOTED.sub(lambda quoted: "_" * len(quoted[0]), statement)
    found = _FORMAT_CLAUSE.search(unquoted)
    assert found is not None
    return found[1]


def _refused_in(text: str, calls: frozenset[str], names: frozenset[str]) -> str | None:
    """Return the first function in the formatter's text that may not be called, or not be named; None if there is none."""
    tokens = list(_TOKEN.finditer(text))
    words = ["", *(token[0] for token in tokens), "", ""]
    for index, token in enumerate(tokens, start=1):
        if token["name"] is None:
            continue
        name = re.sub(r"\\(.)", r"\1", token[0].strip('`"'))
        before, after, next_ = words[index - 1], words[index + 1], words[index + 2]
        if after == "(":
            if name.lower() in calls:
                return name
        elif name.lower() in names:
            # An alias, the name of a subquery of WITH, a table's name, and a part of a longer name are no functions.
            is_given = before == "AS" or (after == "AS" and next_ == "(")
            if not (is_given or before in ("FROM", "JOIN", ".") or after == "."):
                return name
    return None


def _formatted(sql: str, run: Run) -> str:
    """Return the statement as ClickHouse's formatter writes it. Raises StoreError."""
    try:
        return run(f"SELECT formatQuerySingleLine('{sql.translate(_ESCAPED)}') FORMAT RawBLOB").decode()
    except StoreError as error:
        raise StoreError(_IN_SCOPE.sub(" ", str(error))) from error
    except UnicodeDecodeError:
        raise StoreError("the query is not UTF-8 text once its escapes are read") from None
