"""Part of batch_norm_mismatch: batches that differ from each other, as each comes from one source."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from lightning_tricks.diagnosis.finding import Criterion, Finding, Remedy
from lightning_tricks.diagnosis.history.batch_norms import called_twice, calls_of, in_order, misses, steps_to_follow
from lightning_tricks.diagnosis.history.persistence import Persistence
from lightning_tricks.probes import Snapshot

LOOKS = 5  # after the running statistics had time to follow
SAMPLES = 16  # of a batch: the means of fewer say little of how batches differ
MIX = Remedy("shuffle", "let every batch hold all sources: DataLoader(train_set, shuffle=True), no sampler by source")
GROUP_NORM = Remedy("replace_normalization", "use a norm that needs no batch: nn.GroupNorm, or nn.LayerNorm")
POPULATION = Remedy(
    "update_population_statistics",
    "or take the statistics from all sources together: lt.PreciseBatchNorm(), or "
    "lt.surgery.update_population_statistics(model, shuffled_loader), and train the rest with the norms in eval mode",
)


def one_source(history: Sequence[Snapshot], mean_gap: float) -> Iterator[Finding]:
    """Means of batches that lie far apart, at a norm whose running statistics had their time.

    In training each batch loses what its source adds; in evaluation one mean stands for all sources.
    """
    for layer in in_order(history[-1]):
        if not layer.training or layer.samples < SAMPLES or called_twice(history[-1], layer.name):
            continue
        ready = history[0].step + steps_to_follow(layer)  # never, where the momentum is 0 or not known
        late = [(s, record) for s, record in calls_of(history, layer.name) if s.step >= ready and record.training]
        if len(late) < LOOKS:
            continue
        apart = statistics.median(misses(record) for _, record in late)
        why = Criterion("means of batches, from the running ones, in std", apart, ">", mean_gap)
        if not why.holds:
            continue
        ratios = [record.variance_ratio for _, record in late]
        evidence = {
            "batch means, from the running ones, in std": apart,
            "variance of batch means over that within": apart**2,
            "batch variances over the running one, least": min(ratios),
            "most": max(ratios),
            "batch size": layer.samples,
        }
        explanation = (
            f"The means of whole batches lie {apart:.2g} standard deviations from the running ones, where those drawn "
            f"at random would lie {1.0 / math.sqrt(layer.samples):.2g} at most: each holds patterns of one kind. "
            "Batch norm takes away what they share in training, and in evaluation one mean for all does not."
        )
        found = Persistence.over([snapshot for snapshot, _ in late])
        todo = (MIX, GROUP_NORM, POPULATION)
        yield found.finding("batch_norm_mismatch", layer.name, found.severity(), evidence, explanation, todo, [why])
