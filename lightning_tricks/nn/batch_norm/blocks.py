"""Batch normalisation of a batch's blocks, each straight into its place in the output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lightning_tricks._compat.torch_tensors import transforms_are_active
from lightning_tricks.nn.batch_norm.running import accumulation_dtype

__all__ = ["Block", "NormalizeBlocks", "can_write_in_place"]

Block = tuple[int, int, int]  # start, stop, groups


def can_write_in_place(input: Tensor) -> bool:
    """Whether :class:`NormalizeBlocks` may be used: plain tensors on a CPU, nothing that traces or transforms.

    On a GPU the copies it saves cost little, and a compiler fuses them.
    """
    return (
        input.device.type == "cpu"
        and type(input) in (Tensor, nn.Parameter)
        and not torch.compiler.is_compiling()
        and not transforms_are_active()
    )


class NormalizeBlocks(torch.autograd.Function):
    """Batch norm of each block ``(start, stop, groups)`` of a batch, the groups being further channels.

    As ``F.batch_norm`` on the parts of a ``split`` and a ``cat`` of the results, to the bit, without the copies that
    ``cat``, and the gradient of ``split``, make. Returns the output, and mean and unbiased variance of every group one
    after the other.
    """

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, blocks: Sequence[Block]
    ) -> tuple[Tensor, Tensor, Tensor]:
        channels = input.shape[1]
        lengths = [groups * channels for _, _, groups in blocks]
        statistics = torch.zeros(4, sum(lengths), dtype=accumulation_dtype(input.dtype))
        output = torch.empty_like(input)
        for block, part in zip(blocks, statistics.split(lengths, dim=1), strict=True):
            mean, variance, saved_mean, saved_scale = part
            torch.ops.aten.native_batch_norm.out(
                _view(input, block),
                _tiled(weight, block[2]),
                _tiled(bias, block[2]),
                mean,
                variance,
                True,
                1.0,  # this momentum leaves the statistics of every group in mean and variance
                eps,
                out=_view(output, block),
                save_mean=saved_mean,
                save_invstd=saved_scale,
            )
        ctx.eps, ctx.blocks, ctx.lengths = eps, blocks, lengths
        ctx.save_for_backward(input, weight, statistics)
        ctx.mark_non_differentiable(means := statistics[0], variances := statistics[1])
        return output, means, variances

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, statistics = ctx.saved_tensors
        upstream = gradients[0]
        if upstream.stride() != input.stride():
            upstream = torch.empty_like(input).copy_(upstream)
        gradient = torch.empty_like(input) if ctx.needs_input_grad[0] else None
        sums: list[list[Tensor]] = [[], []]
        for block, part in zip(ctx.blocks, statistics.split(ctx.lengths, dim=1), strict=True):
            of_block, *of_affine = torch.ops.aten.native_batch_norm_backward(
                _view(upstream, block),
                _view(input, block),
                _tiled(weight, block[2]),
                None,
                None,
                part[2],
                part[3],
                True,
                ctx.eps,
                ctx.needs_input_grad[:3],
            )
            if gradient is not None:
                _view(gradient, block).copy_(of_block)
            del of_block  # its memory is still in the cache: the next block's
            for terms, term, needed in zip(sums, of_affine, ctx.needs_input_grad[1:3], strict=True):
                if needed:
                    terms.append(term.view(block[2], -1))
        of_weight, of_bias = (torch.cat(terms).sum(0) if terms else None for terms in sums)
        return gradient, of_weight, of_bias, None, None


def _view(tensor: Tensor, block: Block) -> Tensor:
    start, stop, groups = block
    part = tensor[start:stop]
    if groups == 1:
        return part
    return part.view((stop - start) // groups, groups * tensor.shape[1], *tensor.shape[2:])


def _tiled(values: Tensor | None, groups: int) -> Tensor | None:
    return values if values is None or groups == 1 else values.repeat(groups)
