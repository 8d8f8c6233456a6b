"""The errors a user can cause, as one small tree.

    SplitmergeError              exit code 2: bad input or usage
    ├── InputError               an image, video, folder or option that cannot be used
    ├── CheckpointError          a checkpoint that cannot be read or does not fit
    ├── PackageError             a package that is damaged, mixed, altered or too new
    ├── EngineError              a compiled engine that cannot be built, loaded or trusted
    └── VerificationError        exit code 1: a result that was asked about is not so

Every message is one sentence that says what was given, what was expected and what to do, with the file's name in it.
The command line prints the message alone, without a traceback.
"""

__all__ = [
    "CheckpointError",
    "EngineError",
    "InputError",
    "PackageError",
    "SplitmergeError",
    "VerificationError",
]


class SplitmergeError(Exception):
    """Base of all errors that splitmerge raises on purpose."""

    exit_code = 2


class InputError(SplitmergeError):
    """A source, data set, folder or option that cannot be used."""


class CheckpointError(SplitmergeError):
    """A checkpoint that cannot be read, or that belongs to another network."""


class PackageError(SplitmergeError):
    """A package folder that is incomplete, altered, mixed or of a newer format."""


class EngineError(SplitmergeError):
    """An engine that cannot be built, loaded or trusted."""


class VerificationError(SplitmergeError):
    """A check that ran and came out false: an exported graph that disagrees, a gate that failed."""

    exit_code = 1
