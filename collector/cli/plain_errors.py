"""Report wrong options and values in one plain line, instead of in the words of the libraries that found them.

Invariants:
1. A wrong option, value or command gives one line on standard error: the value, what is allowed, or where to read more. The
   exit status is 2 (test_what_is_typed_wrongly_is_one_plain_line).
"""

import re
from typing import Any, Final

import typer
from pydantic import ValidationError
from typer.core import TyperGroup
from typer.exceptions import TyperException

from collector.cli.common import refuse
from collector.config.values import number_text

_CHOICES: Final = re.compile(r".* is not one of (.*?)\.?")
_KINDS: Final = {
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "finite_number": "a finite number",
}


class PlainErrors(TyperGroup):
    """A group of commands that reports errors in our words."""

    def invoke(self, ctx: Any) -> Any:  # typer's context has no public type
        """Run the command. If its usage is wrong, report that, and exit with status 2."""
        try:
            return super().invoke(ctx)
        except typer.BadParameter as error:
            refuse(_value_problem(error) or f"{error.format_message().rstrip('.')}{_more(error)}")
        except TyperException as error:
            message = error.format_message()
            if "\n" in message:  # the help of a group that was called without a command
                raise
            refuse(f"{message.rstrip('.')}{_more(error)}")


def _more(error: TyperException) -> str:
    """Return the end of an error's line, which names the command's help; empty if the command is not known."""
    context = getattr(error, "ctx", None)
    return f" (see {context.command_path} -h)" if context is not None else ""


def _value_problem(error: typer.BadParameter) -> str | None:
    """Return the line for a value that is not allowed; None if the error is another one."""
    cause, param = error.__cause__, error.param
    if not isinstance(cause, ValidationError) or param is None:
        return None
    found = cause.errors()[0]
    name = next((option for option in param.opts if option.startswith("--")), str(param.name).upper())
    return f"{name} must be {_allowed(found['type'], found.get('ctx', {}), found['msg'])}, not {str(found['input'])!r}"


def _allowed(kind: str, context: dict[str, Any], message: str) -> str:
    """Return what a value must be. The arguments are type, context and message of pydantic's error."""
    if kind in _KINDS:
        return _KINDS[kind]
    for bound, words in (("ge", "at least"), ("gt", "more than"), ("le", "at most"), ("lt", "less than")):
        if bound in context:
            return f"{words} {number_text(context[bound])}"
    choices = _CHOICES.fullmatch(message.removeprefix("Value error, "))
    if choices is not None:
        return f"one of {choices[1].replace(chr(39), '')}"
    return message.removeprefix("Value error, ")
