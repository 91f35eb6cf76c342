"""What to do about each problem, the best first."""

from __future__ import annotations

from lightning_tricks.activations import properties_of
from lightning_tricks.diagnosis.finding import Remedy


def initialize(layer: str | None = None) -> Remedy:
    """Initial weights for the activations that follow, in every layer."""
    text = (
        "start every layer with weights that fit, and biases 0: lt.init.initialize(model), or lt.init.lsuv_(model, x)"
    )
    return Remedy("initialize", text, layer)


def of_a_start(function: str) -> tuple[Remedy, ...]:
    """For signals that fade or grow from layer to layer: other units where weights alone cannot help."""
    if properties_of(function).fading:
        return SELU, BATCH_NORM, initialize(), STANDARDIZE
    return initialize(), BATCH_NORM, SELU, STANDARDIZE


STANDARDIZE = Remedy("standardize_input", "normalise the input: put lt.nn.Standardize.fit(train_loader) first")
SELU = Remedy(
    "swap_activation",
    "use self-normalising units: lt.nn.SELULinear, or lt.surgery.self_normalize(model) for ReLU networks",
)
LEAKY = Remedy("swap_activation", "use units that cannot die: SELU, or nn.LeakyReLU")
BATCH_NORM = Remedy("insert_batch_norm", "put batch normalisation before the activation: nn.BatchNorm1d / 2d")
RESIDUAL = Remedy("insert_residual", "give the gradient a short way back: residual connections, or fewer layers")
LOWER_LR = Remedy("lower_learning_rate", "lower the learning rate, by a factor of 3 to 10")
CLIP = Remedy("clip_gradients", "clip the gradient: Trainer(gradient_clip_val=1.0)")
RESET_BIAS = Remedy("reset_bias", "set the biases of this layer to 0: they hold its units on one side of zero")
RANDOM = Remedy("initialize", "start with random weights: lt.init.lecun_normal_(layer.weight)")
CENTRE = Remedy("centre_input", "centre what the layer receives: zero-mean units (SELU, tanh) or a normalised input")
CHECK_DATA = Remedy(
    "check_data", "look for NaN and Inf in the data, and for log(0), x/0 and overflow before this layer"
)

# of disconnected_parameters
ZERO_GRAD_FIRST = Remedy("reorder_zero_grad", "call optimizer.zero_grad() before loss.backward(), never after it")
ADD_TO_OPTIMIZER = Remedy("add_to_optimizer", "give the optimiser all parameters: torch.optim.Adam(model.parameters())")
SWITCH_ON = Remedy("reconnect", "if it is to learn, run it outside of torch.no_grad()")
USE_OR_REMOVE = Remedy("use_or_remove", "use the layer in forward, or take it out of the model")


def reconnect(layer: str, into: str | None) -> Remedy:
    """For a graph that is cut."""
    text = (
        f"look between {layer} and {into or 'the loss'} for detach(), .data, .item(), numpy() and torch.tensor(...), "
        "and keep the tensor in the graph"
    )
    return Remedy("reconnect", text, layer)


def freeze(module: str) -> Remedy:
    """Where it is meant to be so."""
    return Remedy("freeze", f"if it is not to be trained, say so: {module}.requires_grad_(False)", module)


# of output_mismatch
NO_SOFTMAX = Remedy("remove_output_activation", "take the softmax away: cross_entropy wants the raw outputs (logits)")
NO_SIGMOID = Remedy("remove_output_activation", "take the sigmoid away, or use F.binary_cross_entropy")
LOG_SOFTMAX = Remedy("change_loss", "or give log-probabilities, x.log_softmax(1), to nll_loss or kl_div")
CROSS_ENTROPY = Remedy("change_loss", "use F.cross_entropy on the raw outputs")
SAME_SHAPE = Remedy("reshape_target", "give both the same shape: output.squeeze(1), or target.unsqueeze(1)")
SCALE_TARGETS = Remedy("scale_targets", "normalise the targets with the training data's mean and standard deviation")
SHUFFLE = Remedy("check_data", "check the labels, and shuffle: DataLoader(..., shuffle=True)")


def no_activation(function: str) -> Remedy:
    """For an activation left behind the last layer."""
    return Remedy("remove_output_activation", f"take the {function} behind the last layer away")


def small_output(layer: str | None) -> Remedy:
    """For a network that begins sure of itself."""
    return Remedy("initialize", "begin with small weights in the last layer: std 0.01, bias 0", layer)


def outputs(number: str) -> Remedy:
    """For a last layer with the wrong number of units."""
    return Remedy("change_outputs", f"give the last layer the right number of outputs: {number}")


# of batch_norm_mismatch
GROUP_NORM = Remedy("replace_normalization", "use a norm that needs no batch: nn.GroupNorm, or nn.LayerNorm")
LARGER_BATCH = Remedy("larger_batch", "use larger batches: 16 or more")
BATCH_RENORM = Remedy(
    "replace_normalization",
    "use batch renormalisation: lt.surgery.convert_batch_norm(model, lt.nn.BatchRenorm2d)",
)
POPULATION = Remedy(
    "update_population_statistics",
    "take the statistics from the data before evaluation: the callback lt.PreciseBatchNorm(), or "
    "lt.surgery.update_population_statistics(model, train_loader)",
)
MOMENTUM = Remedy("raise_momentum", "let the running statistics follow faster: momentum=0.1")
TRAIN_MODE = Remedy("train_mode", "put the model into training mode: model.train() after every evaluation")
DROPOUT_LAST = Remedy("move_dropout", "put dropout behind the last batch norm, right before the output layer")
LESS_DROPOUT = Remedy("lower_dropout", "or lower its p, or leave it out: batch norm regularises too")
NO_BIAS = Remedy("remove_bias", "leave the bias out: bias=False")


# of learning_rate_too_high and learning_rate_too_low
WARM_UP = Remedy("warm_up", "warm up: let the learning rate grow from near 0 over the first few hundred steps")


def change_lr(how: str, factor: float, now: float) -> Remedy:
    """By a factor that the update ratio gives; ``how`` is "lower" or "raise"."""
    new = now / factor if how == "lower" else now * factor
    to = f", from {now:.2g} to about {new:.1g}" if new > 0 else ""
    return Remedy(
        f"{how}_learning_rate", f"{how} the learning rate by a factor of about {float(f'{factor:.1g}'):g}{to}"
    )


# of overfitting
AUGMENT = Remedy("augment", "more data, or more varied data: random crops, flips, shifts or noise at every epoch")
DROPOUT = Remedy("dropout", "drop hidden units at random: nn.Dropout(0.5) behind the wide layers")
WEIGHT_DECAY = Remedy("weight_decay", "keep the weights small: torch.optim.AdamW(..., weight_decay=0.01) or more")
EARLY_STOPPING = Remedy("early_stopping", 'stop in time: lightning.pytorch.callbacks.EarlyStopping("val_loss")')
BAGGING = Remedy("bagging", "average several networks, each from a sample of the data: lt.BaggingEnsemble")
