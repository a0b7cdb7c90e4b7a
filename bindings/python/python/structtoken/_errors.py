"""What goes wrong, with what to do about it."""

from __future__ import annotations

import errno
import os
from typing import Any


class Error(Exception):
    """A failure: one sentence, and where there is a remedy, a hint.

    ``message`` is the sentence, ``hint`` the remedy or None. ``str()`` gives both.

    >>> import structtoken
    >>> try:
    ...     structtoken.Model.open("missing.safetensors")
    ... except structtoken.Error as error:
    ...     "missing.safetensors" in error.message
    True
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        Exception.__init__(self, message, hint)
        self.args = (message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n\nhint: {self.hint}"


class NotFoundError(Error, FileNotFoundError):
    """A file or folder that is named and not there: ``filename``, None where several may be meant. ``errno`` is ENOENT."""

    def __init__(self, message: str, hint: str | None = None, filename: str | None = None) -> None:
        Error.__init__(self, message, hint)
        self.errno, self.strerror, self.filename = errno.ENOENT, os.strerror(errno.ENOENT), filename

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.hint, self.filename)

    __str__ = Error.__str__


class OutOfMemoryError(Error, MemoryError):
    """There is too little memory for what was asked. It is raised before the memory is taken."""


class InputError(Error, ValueError):
    """A value, a shape or a size that cannot be used."""


class InputTypeError(Error, TypeError):
    """A type, or a dtype, that cannot be used."""
