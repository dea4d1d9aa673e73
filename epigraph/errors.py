"""Every exception Epigraph raises on purpose.

    EpigraphError                      message says what was asked and found; hint says what to do
    ├── InputError (ValueError)        something the user gave cannot be used
    │   ├── ConfigError                a setting has a value that cannot be
    │   ├── DataError                  a data file or its rows
    │   ├── TaskError                  a task: template, verbalizer, labels, task TOML
    │   ├── NameRefused                a name that is reserved or not safe as a folder
    │   └── BaseMismatch               a prompt met a base it was not tuned on
    ├── NotFound (LookupError)         a prompt, version, alias, run or file that is not there
    ├── Corrupt (ValueError)           stored bytes differ from what was written, or are of a refused format
    ├── Unsupported (NotImplementedError)  a base or combination that Epigraph refuses rather than gets wrong
    ├── FetchFailed (OSError)          a pinned file could not be fetched or verified
    ├── StorageFailed (OSError)        the disk is full, read-only or not ours
    ├── QueueFull (RuntimeError)       the server holds as many requests as it may
    │   └── Closing                    or takes none any more
    └── Diverged (ArithmeticError)     the loss stayed non-finite after every roll-back

All of them end a command with exit code 2 and one clear line. Anything else that reaches the command line is our own
fault: exit code 1.
"""


class EpigraphError(Exception):
    """The root. ``hint`` is one sentence that says what to do next, or empty where the message says it already."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class InputError(EpigraphError, ValueError):
    """Something the user gave cannot be used."""


class ConfigError(InputError):
    """A setting has a value that cannot be."""


class DataError(InputError):
    """A data file, or too many of its rows, cannot be used."""


class TaskError(InputError):
    """A task's template, verbalizer, labels or TOML cannot be used."""


class NameRefused(InputError):
    """A name is reserved, or not safe as the name of a folder."""


class BaseMismatch(InputError):
    """A prompt met a base it was not tuned on."""


class NotFound(EpigraphError, LookupError):
    """A prompt, version, alias, run or file is not there."""


class Corrupt(EpigraphError, ValueError):
    """Stored bytes differ from what was written, or are of a format that is refused."""


class Unsupported(EpigraphError, NotImplementedError):
    """A base or a combination that Epigraph refuses rather than gets wrong."""


class FetchFailed(EpigraphError, OSError):
    """A pinned file could not be fetched or verified."""


class StorageFailed(EpigraphError, OSError):
    """The disk is full, read-only or not ours."""


class QueueFull(EpigraphError, RuntimeError):
    """The server holds as many requests as it may: ask again later."""


class Closing(QueueFull):
    """The server takes no more requests: it is shutting down."""


class Diverged(EpigraphError, ArithmeticError):
    """The loss stayed non-finite after every roll-back."""
