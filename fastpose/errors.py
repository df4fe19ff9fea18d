"""Every error a user can cause is one of these: it names the thing, says what was got and what to do."""


class FastposeError(Exception):
    """Base of all errors that fastpose raises on purpose; the command line ends with exit code 2 on it."""


class ConfigError(FastposeError, ValueError):
    """A configuration file or a `key=value` override is wrong."""


class DataError(FastposeError, ValueError):
    """An annotation file, a box file or a dataset folder is wrong."""


class ImageError(DataError):
    """An image is missing, unreadable, too large or outside its root."""


class CheckpointError(FastposeError, ValueError):
    """A weights file or a training state cannot be used."""


class OutputError(FastposeError, OSError):
    """A folder or file that fastpose should write cannot be written."""


class BackendUnavailableError(FastposeError, RuntimeError):
    """A backend was asked for by name and cannot run; the message carries the reason."""


class TrainingError(FastposeError, RuntimeError):
    """Training cannot go on, for example because the loss is no longer finite."""


class ExportError(FastposeError, RuntimeError):
    """A network cannot be exported, a package for it is missing, or the file does not compute the same."""
