"""How a network's weights begin (torch only)."""

from lightning_tricks.init.fans import Fans, WeightBlock, fans, weight_blocks
from lightning_tricks.init.lsuv import lsuv_
from lightning_tricks.init.moments import (
    FixedPoint,
    Moments,
    Stability,
    fixed_points,
    gain,
    moments,
    one_step_gain,
    stability,
)
from lightning_tricks.init.network import initialize
from lightning_tricks.init.orthogonal import delta_orthogonal_, orthogonal_
from lightning_tricks.init.predict import LayerPrediction, NetworkPrediction, predict
from lightning_tricks.init.report import Entry, NoEffectWarning, Report
from lightning_tricks.init.schemes import (
    glorot_normal_,
    glorot_uniform_,
    he_normal_,
    he_uniform_,
    lecun_normal_,
    lecun_uniform_,
    variance_scaling_,
)
from lightning_tricks.init.selu_map import selu_fixed_point, selu_jacobian, selu_moments

__all__ = [
    "Fans",
    "WeightBlock",
    "fans",
    "weight_blocks",
    "lsuv_",
    "FixedPoint",
    "Moments",
    "Stability",
    "fixed_points",
    "gain",
    "moments",
    "one_step_gain",
    "stability",
    "initialize",
    "LayerPrediction",
    "NetworkPrediction",
    "predict",
    "Entry",
    "NoEffectWarning",
    "Report",
    "delta_orthogonal_",
    "glorot_normal_",
    "glorot_uniform_",
    "he_normal_",
    "he_uniform_",
    "lecun_normal_",
    "lecun_uniform_",
    "orthogonal_",
    "variance_scaling_",
    "selu_fixed_point",
    "selu_jacobian",
    "selu_moments",
]
