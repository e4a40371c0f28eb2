"""Messages to the user: one logger, five levels, each notice once.

`AIO_DEBUG_MODE` 0 to 4: nothing, errors, basic information and warnings (the default), most
messages, all. Messages go to stderr unless the program configured logging itself: then they go
where it sends them, still filtered by the level.
"""

from __future__ import annotations

import logging
import sys
import threading

LEVELS = (logging.CRITICAL + 10, logging.ERROR, logging.INFO, logging.DEBUG, 5)
DEFAULT_LEVEL = 2
ALL = LEVELS[4]

logger = logging.getLogger("torch_aio")

_seen: set[str] = set()
_lock = threading.Lock()


class _Stderr(logging.Handler):
    """Writes to the stderr of the moment; silent where the program configured logging."""

    def emit(self, record: logging.LogRecord) -> None:
        if logger.propagate and logging.getLogger().handlers:
            return
        try:
            print(self.format(record), file=sys.stderr)
        except (OSError, ValueError):  # stderr is closed
            return


class _Format(logging.Formatter):
    """Information as it is; anything else behind the engine's name and its level."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if record.levelno == logging.INFO:
            return text
        return f"torch_aio {record.levelname.lower()}: {text}"


def set_level(debug_mode: int) -> None:
    """Show what `AIO_DEBUG_MODE=debug_mode` shows."""
    logger.setLevel(LEVELS[debug_mode])


def info(text: str, *args: object) -> None:
    """Basic information: level 2."""
    logger.info(text, *args)


def warning(text: str, *args: object) -> None:
    """Something the user should know: level 2."""
    logger.warning(text, *args)


def error(text: str, *args: object) -> None:
    """Something failed: level 1."""
    logger.error(text, *args)


def debug(text: str, *args: object) -> None:
    """What the engine does: level 3."""
    logger.debug(text, *args)


def trace(text: str, *args: object) -> None:
    """Everything: level 4."""
    logger.log(ALL, text, *args)


def notice_once(key: str, text: str, *, level: int = logging.WARNING) -> bool:
    """Log ``text`` unless a notice of this key was logged before; whether it was logged now."""
    with _lock:
        if key in _seen:
            return False
        _seen.add(key)
    logger.log(level, "%s", text)
    return True


def forget_notices() -> None:
    """Let every notice be logged once more (tests, a second configuration)."""
    with _lock:
        _seen.clear()


def _install() -> None:
    if not any(isinstance(handler, _Stderr) for handler in logger.handlers):
        logging.addLevelName(ALL, "TRACE")
        handler = _Stderr()
        handler.setFormatter(_Format())
        logger.addHandler(handler)
        set_level(DEFAULT_LEVEL)


_install()
