"""What a network is made of (torch only)."""

from lightning_tricks.nn.dropout import AlphaDropout, FeatureAlphaDropout, alpha_dropout
from lightning_tricks.nn.selu import SelfNormalizingMLP, SELUConv1d, SELUConv2d, SELUConv3d, SELULinear
from lightning_tricks.nn.standardize import Standardize
