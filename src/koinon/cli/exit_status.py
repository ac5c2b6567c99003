"""How a command ends."""

from enum import IntEnum


class Exit(IntEnum):
    """The exit statuses of every command."""

    DONE = 0
    FAILED = 1  # a KoinonError: the message says what to do
    USAGE = 2  # a flag, a field or a file that does not exist
    DIVERGED = 3  # every client of a round was refused; what came before is kept
    APP = 4  # the app file raised: its own traceback is shown
    INTERRUPTED = 130
    TERMINATED = 143  # SIGTERM, as systemctl stop and docker stop send it


class AppFileError(Exception):
    """The app file raised; the message is its own traceback. A command that meets it ends with Exit.APP."""
