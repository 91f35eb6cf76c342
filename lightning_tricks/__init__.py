"""lightning_tricks: finds what is wrong with a training run, names the first faulty layer, explains it with numbers."""

import sys


def _is_command() -> bool:
    """Whether this process is the command line, which reads its arguments first and then loads all below."""
    begun_by, line = getattr(sys, "argv", [""])[0], sys.orig_argv
    if begun_by == "-m":
        return "lightning_tricks" in line[line.index("-m") + 1 :][:1] if "-m" in line else False
    name = begun_by.replace("\\", "/").rpartition("/")[2]
    return name in ("lightning-tricks", "lightning-tricks.exe") and begun_by in line


if not _is_command() or "lightning_tricks.commands" in sys.modules:
    from lightning_tricks import experiments, init, nn, report, surgery
    from lightning_tricks.callbacks import (
        ActivationMonitor,
        BatchAugmentation,
        GradientFlowMonitor,
        InitializeWeights,
        PreciseBatchNorm,
        TrainingDoctor,
        TrainingProblemError,
        TransformersDoctor,
    )
    from lightning_tricks.checkup import checkup
    from lightning_tricks.comparison import Comparison, compare
    from lightning_tricks.diagnosis import Finding, Remedy, Rule, diagnose, rule
    from lightning_tricks.diagnosis.diagnosis import Diagnosis
    from lightning_tricks.diagnosis.experiment import Experiment
    from lightning_tricks.ensemble import (
        BaggingEnsemble,
        BootstrapDataModule,
        EnsembleDecomposition,
        MonteCarloDropout,
        decompose,
    )
    from lightning_tricks.ensemble.data.bootstrap import bootstrap
    from lightning_tricks.modules import Classifier, Regressor
    from lightning_tricks.probes import ActivationRecord, ParameterRecord, Snapshot, WeightedRecord, probe
    from lightning_tricks.summary import Summary, summary
    from lightning_tricks.testing import assert_healthy
    from lightning_tricks.treatment import Treatment, treat
    from lightning_tricks.verify import Verification, verify
    from lightning_tricks.watch import LoopDoctor, watch

__version__ = "0.2.0"
__all__ = [
    # attach
    "ActivationMonitor",
    "GradientFlowMonitor",
    "TrainingDoctor",
    "TrainingProblemError",
    "TransformersDoctor",
    "InitializeWeights",
    "PreciseBatchNorm",
    "BatchAugmentation",
    # look
    "probe",
    "watch",
    "LoopDoctor",
    "checkup",
    "assert_healthy",
    "verify",
    "Verification",
    "summary",
    "Summary",
    "compare",
    "Comparison",
    "diagnose",
    "Diagnosis",
    "Experiment",
    "Finding",
    "Remedy",
    "Rule",
    "rule",
    "Snapshot",
    "ActivationRecord",
    "WeightedRecord",
    "ParameterRecord",
    # try
    "experiments",
    # cure
    "treat",
    "Treatment",
    # show
    "report",
    # build, start, change
    "nn",
    "init",
    "surgery",
    "Classifier",
    "Regressor",
    # combine
    "BaggingEnsemble",
    "BootstrapDataModule",
    "bootstrap",
    "MonteCarloDropout",
    "EnsembleDecomposition",
    "decompose",
]


def __dir__() -> list[str]:
    """What completion shows: the public names, none of the rooms that they come from."""
    return [*__all__, *(name for name in globals() if name.startswith("__"))]
