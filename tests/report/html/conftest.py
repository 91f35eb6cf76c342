"""Pages of small trainings, and a browser to look at them with, where one is installed."""

import dataclasses
import html
import json
import os
import re
import shutil
import subprocess

import pytest
import torch
from torch import nn

import lightning_tricks as lt
from lightning_tricks.diagnosis import Finding, Remedy
from lightning_tricks.diagnosis.experiment import Experiment
from lightning_tricks.report import Diagnosis
from tests.report.conftest import mlp

BROWSER = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr")


def watched(model, steps=40, lr=0.05, scale=1.0):
    """The diagnosis of a training that learns which of four directions is nearest."""
    torch.manual_seed(1)
    directions, optimizer = torch.randn(8, 4), torch.optim.SGD(model.parameters(), lr, momentum=0.9)
    with lt.watch(model, optimizer, every_n_steps=10, report=False, on_problem="log") as doctor:
        for step in range(steps):
            x = torch.randn(64, 8)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x * scale), (x @ directions).argmax(1)).backward()
            optimizer.step()
            if step % 10 == 9:
                doctor.validated(1.0)
    return doctor.diagnosis


@pytest.fixture(scope="session")
def healthy():
    return watched(lt.init.initialize(mlp(3, nn.ReLU)))


@pytest.fixture(scope="session")
def one_fault():
    """Logistic units, twelve layers deep: the gradient vanishes."""
    return watched(mlp(12, nn.Sigmoid))


@pytest.fixture(scope="session")
def two_faults():
    """An input that is not normalised, and a layer that nobody calls; with an experiment for proof of the first."""
    model = lt.init.initialize(mlp(2, nn.ReLU, width=8))
    model[0].unused = nn.Linear(3, 3)
    found = watched(model, scale=50.0, lr=0.001)
    numbers, curves = {"loss before": 1.5, "loss after": 0.2}, {"loss": [1.5, 1.0, 0.5, 0.2]}
    tried = Experiment("standardized", "does it learn faster on standardised inputs?", "yes", numbers, curves, 4, 0.3)
    first = dataclasses.replace(found.findings[0], proof=tried)
    return dataclasses.replace(found, findings=[first, *found.findings[1:]], experiments=[tried])


@pytest.fixture(scope="session")
def hostile(one_fault):
    """HTML wherever a name, a number or a sentence of others is shown."""
    evil = '<img src=x onerror="document.title=\'broken\'"></script><script>document.title="broken"</script>&"\''
    remedy = Remedy("x", f"do {evil}", evil)
    inner = Finding("evil", evil, "warning", 0, {evil: evil}, evil, (remedy,))
    finding = Finding("evil", evil, "critical", 0, {evil: evil}, evil, (remedy,), (inner,))

    def renamed(records):
        return tuple(dataclasses.replace(record, name=f"{evil}{record.name}") for record in records)

    history = [
        dataclasses.replace(
            s, activations=renamed(s.activations), weighted=renamed(s.weighted), not_seen={evil: evil}, ended=True
        )
        for s in one_fault.history
    ]
    tried = Experiment(evil, evil, evil, {evil: 1.0}, {evil: [1.0, 2.0]})
    return Diagnosis([finding], history, (evil, "*"), [tried])


@pytest.fixture(scope="session")
def compared(healthy):
    """Two runs, of which one has weights that were made small on the way."""
    spoilt = lt.init.initialize(mlp(3, nn.ReLU))
    with torch.no_grad():
        spoilt[2].weight.mul_(0.01)
    return lt.compare(healthy, watched(spoilt))


def long_diagnosis(layers, looks):
    """Of a made-up training: so many layers, so many looks, no two numbers alike; every 32nd look is the same again."""
    looked = min(looks, 31)
    numbers = torch.rand(looked, layers, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    history = []
    for step in range(looked):
        weighted, activations, parameters = [], [], []
        for layer, (mean, std, *more) in enumerate(numbers[step]):
            name = f"encoder.layer.{layer}"
            shared = {"mean": 10 * mean - 5, "std": 100.0 ** (2 * std - 1), "patterns": 64}
            weighted.append(
                lt.WeightedRecord(
                    f"{name}.fc", "linear", 2 * layer, error_signal=100.0 ** (more[0] - 0.5), elements=64, **shared
                )
            )
            activations.append(
                lt.ActivationRecord(
                    f"{name}.act",
                    "tanh",
                    2 * layer + 1,
                    linearity=more[1],
                    saturation=more[2],
                    transmission=more[3],
                    **shared,
                )
            )
            rest = {"update_ratio": 0.01 * more[4], "update_coherence": more[5], "mean_drift": more[6], "gradient": 1.0}
            parameters.append(lt.ParameterRecord(f"{name}.fc.weight", f"{name}.fc", (8, 8), 8, update=1.0, **rest))
        history.append(lt.Snapshot(step, 1.0 + std, False, 1.0, tuple(activations), tuple(weighted), tuple(parameters)))
    history = [dataclasses.replace(history[step % looked], step=step) for step in range(looks)]
    return Diagnosis([Finding("saturation", "encoder.layer.77.act", "warning", 3)], history)


_ANSWER = """
document.body.append(Object.assign(document.createElement("pre"), {id: "answer", textContent: JSON.stringify(answer)}));
"""


class Browser:
    """Chromium without a window."""

    def __init__(self, folder):
        self.folder, self.calls = folder, 0

    def run(self, page, *arguments):
        """What it wrote to its output and what its console said."""
        self.calls += 1
        profile = self.folder / f"profile{self.calls}"
        command = [BROWSER, *FLAGS, f"--user-data-dir={profile}", *arguments, page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, env={**os.environ})
        said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return done.stdout, said

    def asked(self, page, script, *arguments):
        """The value of a script in a copy of a page that allows it."""
        text = page.read_text()
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        ask = f"<script>const answer = (() => {{{script}}})(); {_ANSWER}</script></body>"
        return self._answer(text.replace("</body>", ask), *arguments)

    def framed(self, page, width, script):
        """The same in a frame of a width: a window has 500 pixels at least."""
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", page.read_text())
        frame = f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{html.escape(text)}"></iframe>'
        ask = f"const {{document: page}} = frames[0]; const answer = (() => {{{script}}})(); {_ANSWER}"
        return self._answer(f"<body>{frame}<script>addEventListener('load', () => {{{ask}}})</script></body>")

    def _answer(self, text, *arguments):
        copy = self.folder / f"asked{self.calls}.html"
        copy.write_text(f"<!doctype html><meta charset=utf-8>{text}" if "<!doctype" not in text[:20] else text)
        shown, said = self.run(copy, "--dump-dom", *arguments)
        assert not said, said
        found = re.findall(r'<pre id="answer">(.*?)</pre>', shown, re.S)[-1]
        return json.loads(html.unescape(found))


@pytest.fixture
def browser(tmp_path):
    if BROWSER is None:
        pytest.skip("needs a browser: Debian's package chromium (apt-get install chromium)")
    return Browser(tmp_path)
