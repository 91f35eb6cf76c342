"""Writing that leaves the old file whole until the new one is: on a full disk, without permission, when killed."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replaced(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """A file beside ``path`` to write to, which takes its place at the end of the block, and goes after an error.

    What is there and no plain file, such as a pipe, is written to itself.

    Raises:
        OSError: It cannot be written, with the file's name and why.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with replaced(pathlib.Path(folder, "page.html")) as part:
    ...         _ = part.write_text("whole")
    ...     pathlib.Path(folder, "page.html").read_text(), len(os.listdir(folder))
    ('whole', 1)
    """
    target = pathlib.Path(os.path.realpath(path))  # of a link, what it leads to
    part = target.with_name(f".{target.stem}.{os.getpid()}.part{target.suffix}")
    try:
        if target.exists() and not target.is_file():
            yield target
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, target)
    except OSError as error:
        raise OSError(error.errno, f"cannot write to {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
