"""Writing survives a full disk, an unwritable folder and a kill: what was there stays whole."""

import os
import pathlib
import signal

import pytest

from lightning_tricks.report import Diagnosis, ladder
from lightning_tricks.report.figures import style
from lightning_tricks.report.files import missing, replaced

WRITERS = {
    "page": lambda history, path: Diagnosis([], history).to_html(path),
    "table": lambda history, path: Diagnosis([], history).to_csv(path),
    "picture": lambda history, path: style.save(ladder(history), path),
}


@pytest.fixture(params=WRITERS)
def write(request, rectifiers):
    return lambda path: WRITERS[request.param](rectifiers, path)


def test_the_new_file_takes_the_place_of_the_old_one(write, tmp_path):
    path = tmp_path / "new" / "file.png"
    write(path)
    whole = path.read_bytes()
    path.write_bytes(b"old")
    write(path)
    assert len(path.read_bytes()) == pytest.approx(len(whole), abs=8)  # a page says when it was written
    assert [each.name for each in path.parent.iterdir()] == ["file.png"]


def test_a_full_disk_leaves_the_old_file_whole(write, tmp_path, monkeypatch):
    path = tmp_path / "file.png"
    path.write_bytes(b"old")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match=r"cannot write to .*file\.png: No space left on device") as told:
        write(path)
    assert told.value.errno == 28
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file.png"]


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_disk_that_is_really_full_is_named(tmp_path):
    with pytest.raises(OSError, match=r"cannot write to /dev/full: No space left on device"):
        Diagnosis().to_html("/dev/full")
    assert pathlib.Path("/dev/full").exists()


def test_a_folder_that_cannot_be_made_is_named(write, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OSError, match=r"cannot write to .*taken.file\.png: (Not a directory|File exists)"):
        write(tmp_path / "taken" / "file.png")


def test_a_folder_without_permission_is_named(write, tmp_path):
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write anywhere")
    with pytest.raises(PermissionError, match="cannot write to"):
        write(tmp_path / "file.png")
    tmp_path.chmod(0o700)


@pytest.mark.skipif(os.name == "nt", reason="kills a process as POSIX does")
def test_a_kill_leaves_the_old_file_whole(tmp_path):
    path = tmp_path / "page.html"
    path.write_text("old")
    child = os.fork()
    if not child:
        with replaced(path) as part:
            part.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert (tmp_path / f".page.{child}.part.html").read_text() == "half"
    assert path.read_text() == "old"


def test_a_link_leads_to_what_is_written(tmp_path):
    (tmp_path / "target").write_text("old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    with replaced(tmp_path / "link") as part:
        part.write_text("new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "new"


@pytest.mark.skipif(os.name == "nt", reason="needs a pipe with a name")
def test_what_is_no_plain_file_is_written_to_itself(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with replaced(tmp_path / "pipe") as part:
        assert part == tmp_path / "pipe"
    assert (tmp_path / "pipe").is_fifo()


def test_a_missing_file_is_told_with_what_is_beside_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("runs/good.csv", "runs/bad.csv", "runs/notes.md", "runs/.hidden.csv", "runs/last.ckpt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    kinds = (".csv", ".ckpt")
    assert missing("runs/god.csv", kinds) == (
        "there is no file runs/god.csv: did you mean runs/good.csv? in runs: bad.csv, good.csv, last.ckpt"
    )
    assert missing("run/good.csv", kinds) == "there is no file run/good.csv: did you mean runs? in .: runs"
    assert missing("runs", kinds) == "runs is a folder; in runs: bad.csv, good.csv, last.ckpt"
    assert missing("elsewhere/far/x.csv", kinds) == "there is no file elsewhere/far/x.csv; in .: runs"
    assert missing("runs/x.py") == "there is no file runs/x.py; in runs: nothing of that kind"
    for i in range(20):
        (tmp_path / f"runs/{i:02}.csv").touch()
    assert missing("runs/x.csv", kinds).endswith("06.csv, 07.csv and 15 more")
