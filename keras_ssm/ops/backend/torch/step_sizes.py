"""Step sizes of the selective scan on PyTorch."""

import torch


class StepSizes:
    """The step sizes: given, or softplus(low kernel + bias) and 0 where a mask covers.

    With a kernel they are computed part by part.

    Args:
        count: int. Steps of a part, which holds all rows and a slice of the features.
        given: tensor `(batch, length, features)`, or `(batch, length, rank)` with a kernel.
        kernel: tensor `(rank, features)` or `None`.
        bias: tensor `(features,)`.
        mask: boolean tensor `(batch, length)` or `None`.
        held: tensor `(length, batch, features)` or `None`. Where the sizes are written with a
            kernel, or in a backward pass read.
    """

    def __init__(self, count, given, kernel=None, bias=None, mask=None, held=None):
        self.count, self.weights, self.held, self.written = count, None, held, False
        self.given = given.transpose(0, 1)
        self.covered = None if mask is None else (~mask.mT[..., None]).split(count)
        if kernel is not None:  # the bias multiplies a 1, so that one product serves both
            self.weights = torch.cat([kernel, bias[None]])
            one = given.new_ones((*self.given.shape[:2], 1))
            self.given = torch.cat([self.given, one], -1)
            self.parts = [part.flatten(0, 1) for part in self.given.split(count)]

    def choose(self, block):
        """Says which features the next parts hold."""
        self.block = block
        if self.weights is None:
            self.parts = self.given[..., block].split(self.count)
        else:
            self.chosen = self.weights[:, block].contiguous()
            if self.held is not None:
                self.held_parts = self.held[..., block].split(self.count)

    def of(self, i):
        """The sizes of part i, `(steps, batch, features)`."""
        if self.weights is None:
            return self.parts[i]
        if self.written:
            return self.held_parts[i]
        sizes = torch.mm(self.parts[i], self.chosen)
        torch.ops.aten.softplus(sizes, 1, 20, out=sizes)
        sizes = sizes.view(-1, self.given.shape[1], sizes.shape[-1])
        if self.covered is not None:
            sizes.masked_fill_(self.covered[i], 0)
        if self.held is not None:
            self.held_parts[i].copy_(sizes)
        return sizes

    def differentiate(self):
        """Makes room for the gradients, of sizes that were written."""
        self.written = True
        self.slopes = torch.zeros_like(self.given)
        if self.weights is not None:
            self.weight_slopes = torch.zeros_like(self.weights)

    def add_gradients(self, i, sizes, slope):
        """Takes the gradient of the sizes of part i, which nobody asks for any more."""
        slopes = self.slopes.split(self.count)[i]
        if self.weights is None:
            slopes[..., self.block].copy_(slope)
            return
        # The slope of softplus is 1 - exp(-softplus): 0 where a mask covers.
        slope = sizes.neg().expm1_().mul_(slope).neg_().flatten(0, 1)
        slopes.flatten(0, 1).addmm_(slope, self.chosen.mT)
        self.weight_slopes[:, self.block].addmm_(self.parts[i].mT, slope)

    def gradients(self):
        """Of what was given, and of a kernel, its bias and a mask."""
        slopes = self.slopes.transpose(0, 1)
        if self.weights is None:
            return (slopes,)
        return slopes[..., :-1], self.weight_slopes[:-1], self.weight_slopes[-1], None
