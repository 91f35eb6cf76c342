"""What a person sees at 80 columns: the whole table beside a progress bar, and how it stands in the bar."""

import contextlib
import io
import re
import sys
import warnings

import lightning.pytorch as L
import pytest
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar, TQDMProgressBar
from torch import nn

import lightning_tricks as lt
from lightning_tricks._compat.lightning import rank_zero_warn
from lightning_tricks._compat.messages import above_bars
from lightning_tricks.callbacks.monitoring.output.screen import in_few_words
from lightning_tricks.diagnosis.finding import Finding
from tests.callbacks.trainings import Classifier, batches, fit, mlp
from tests.versions import LIGHTNING

BARS = {"rich": RichProgressBar, "tqdm": TQDMProgressBar}
if LIGHTNING < (2, 5):  # whose bar ends in an IndexError with the rich of today
    del BARS["rich"]


class Terminal(io.StringIO):
    """A stream that is a terminal, and the screen that its characters leave behind."""

    encoding = "utf-8"

    def isatty(self):
        return True

    def screen(self):
        lines, row, column = [""], 0, 0
        for token in re.findall(r"\x1b\[[?0-9;]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", self.getvalue()):
            if token == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif token == "\r":
                column = 0
            elif token.startswith("\x1b"):
                row -= int(token[2:-1] or 1) if token.endswith("A") else 0
                lines[row] = "" if token.endswith("2K") else lines[row]
            else:
                line = lines[row].ljust(column)
                lines[row], column = line[:column] + token + line[column + len(token) :], column + len(token)
        return [line.rstrip() for line in lines]


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


@contextlib.contextmanager
def on(terminal):
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        yield


def symmetric():
    net = mlp()
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.5)
    return net


def trained(terminal, bar, net=None, **options):
    doctor = lt.TrainingDoctor(every_n_steps=1, **options)
    with on(terminal):
        trainer = fit(Classifier(net), [doctor, bar], batches(6, 64), enable_progress_bar=True)
    return doctor, trainer


@pytest.mark.parametrize("bar", BARS)
def test_the_whole_table_is_seen_beside_a_bar(bar, terminal):
    doctor, _ = trained(terminal, BARS[bar](), on_problem="log")
    shown = terminal.screen()
    table = lt.report.table.text(doctor.diagnosis, 80).splitlines()
    start = shown.index(table[0])
    assert shown[start : start + len(table)] == table
    where = start + len(table)
    assert "".join(shown[where : where + 2]).startswith("Page, pictures and history: ")


@pytest.mark.parametrize("bar", BARS)
def test_the_table_after_an_exception(bar, terminal):
    class Breaks(L.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if batch_idx == 3:
                raise ZeroDivisionError

    doctor = lt.TrainingDoctor(every_n_steps=1, files=False)
    with pytest.raises(ZeroDivisionError), on(terminal):
        fit(Classifier(), [doctor, BARS[bar](), Breaks()], batches(6, 64), enable_progress_bar=True)
    assert set(lt.report.table.text(doctor.diagnosis, 80).splitlines()) <= set(terminal.screen())


@pytest.mark.parametrize("bar", BARS)
def test_the_bar_tells_how_it_stands(bar, terminal):
    trained(terminal, BARS[bar](), report=False)
    assert re.search(r"doctor[:=]\s?healthy", " ".join(terminal.screen()))
    trained(terminal, BARS[bar](), symmetric(), report=False, on_problem="log")
    assert re.search(r"doctor[:=]\s?sick", " ".join(terminal.screen()))


@pytest.mark.parametrize(("columns", "said"), [(80, "healthy"), (120, "healthy so far")])
@pytest.mark.parametrize("bar", BARS)
def test_what_it_tells_stays_on_the_line_of_the_bar(bar, columns, said, terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    trained(terminal, BARS[bar](), report=False)
    assert any(re.search(rf"6/6 .*doctor[:=] ?{said}(,|\]|\s|$)", line) for line in terminal.screen())


def test_a_warning_is_not_glued_to_the_bar_of_tqdm(terminal):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda *given: sys.stderr.write(warnings.formatwarning(*given[:4]))
        trained(terminal, TQDMProgressBar(), symmetric(), report=False)
    ours = [line for line in terminal.screen() if "lightning_tricks: " in line]
    assert ours
    assert all(line.startswith("lightning_tricks: critical: symmetric_weights") for line in ours)


def test_a_bar_that_takes_numbers_only_shows_numbers_only(terminal):
    class Rounds(TQDMProgressBar):
        def get_metrics(self, trainer, pl_module):
            return {name: round(float(value), 3) for name, value in super().get_metrics(trainer, pl_module).items()}

    doctor, trainer = trained(terminal, Rounds(), report=False)
    assert trainer.global_step == len(doctor.history) == 6
    assert "doctor" not in trainer.progress_bar_metrics


def test_a_bar_of_another_kind_and_none(capsys):
    class Own(ProgressBar):
        def disable(self):
            pass

    for bars in ([Own()], []):
        looking = [lt.TrainingDoctor(every_n_steps=1, files=False), *bars]
        fit(Classifier(), looking, batches(6, 64), enable_progress_bar=bool(bars))
        assert "no fault found in 6 steps" in capsys.readouterr().out


def test_without_tqdm(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "tqdm", raising=False)
    with above_bars(sys.stdout):
        print("said")
    assert capsys.readouterr().out == "said\n"
    with pytest.warns(UserWarning, match="said"):
        rank_zero_warn("said")


def test_few_words_are_few():
    long = Finding("vanishing_gradient", "encoder.layers.11.attention.output.dense", "critical", 4, {})
    quiet = Finding("linearity", "net.1", "info", 4, {})
    assert in_few_words(lt.Diagnosis([quiet, long])) == "vanishing gradient at encoder.layers...."
    assert in_few_words(lt.Diagnosis([quiet, long]), 20) == "vanishing gradient"
    assert in_few_words(lt.Diagnosis([quiet, long]), 11) == "sick"
    assert in_few_words(lt.Diagnosis([quiet])) == "no verdict yet"
