"""How well experiments name a cause and ``lt.treat`` cures it: on the clinic with own seeds, and where all is well.

Three sets: the clinic's sick trainings, its healthy ones, and the adversarial healthy ones. Runs go into a file,
those that are in it already are skipped, so that it can be run in parts. Cost is counted in optimiser steps, against
those of the whole training.

    python -m tests.benchmarks.treatment run --set sick --every 7 --seconds 110
    python -m tests.benchmarks.treatment run --set healthy --every 9 --seconds 110
    python -m tests.benchmarks.treatment run --set adversarial --every 3 --seconds 110
    python -m tests.benchmarks.treatment report --failures
"""
