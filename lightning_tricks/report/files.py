"""Writing that leaves the old file whole until the new one is, on a full disk or when killed; what a file that is not
there may have been."""

from __future__ import annotations

import contextlib
import difflib
import os
import pathlib
from collections.abc import Collection, Iterator

_MOST_NAMED = 8


def missing(path: str | pathlib.Path, suffixes: Collection[str] = ()) -> str:
    """What to say of a file that is not there: the nearest name beside it, and what else is there.

    Args:
        path: The file, or a folder that is no file.
        suffixes: Of the files that it could have been; those of its own kind where none are given.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     pathlib.Path(folder, "good.csv").touch()
    ...     missing(f"{folder}/god.csv").replace(folder, "runs")
    'there is no file runs/god.csv: did you mean runs/good.csv? in runs: good.csv'
    """
    path = pathlib.Path(path)
    said = f"{path} is a folder" if path.is_dir() else f"there is no file {path}"
    folder, name = (path, "") if path.is_dir() else (path.parent, path.name)
    while not folder.is_dir():
        folder, name = folder.parent, folder.name
    kinds = suffixes or (path.suffix,)
    beside = [each for each in folder.iterdir() if each.suffix in kinds or each.is_dir()]
    names = sorted(each.name for each in beside if not each.name.startswith((".", "__")))
    near = difflib.get_close_matches(name, names, 1, 0.6)
    meant = f": did you mean {folder / near[0]}?" if near else ";"
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return f"{said}{meant} in {folder}: {', '.join(names[:_MOST_NAMED]) or 'nothing of that kind'}{more}"


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
