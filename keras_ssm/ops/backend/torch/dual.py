"""The recurrence of Mamba-2 on PyTorch: one function with its own gradient, some chunks at a time.

Left to autograd, most of the time goes into new memory: a chunk has a matrix of T x T for every
head. Here the matrices of a few chunks are made in buffers that a CPU's caches hold, and made anew
for the gradient. What is kept are the outputs and the states between the chunks.
"""

import itertools

import torch

from keras_ssm.ops.backend.torch.tensors import by_autograd, needs_autograd
from keras_ssm.ops.backend.torch.workspace import Buffers

# Steps in a chunk. And numbers in a buffer, for the chunks that are computed together.
# Measured.
CHUNK_SIZE = 64
TOGETHER = 2**18

# Logarithms of decays below this one count as this one, 1e-28: smaller results of `exp` take
# 40 ns a number, and -inf 2, where others take 0.2.
LOWEST = -64.0


def dual_outputs(x, dt, A, B, C, initial, chunk_size, portable):
    """Outputs and last state of `ops.ssd` without its skip.

    Args:
        x: tensor `(batch, length, heads, head_dim)`.
        dt: tensor `(batch, length, heads)`.
        A: tensor `(heads,)`.
        B, C: tensors `(batch, length, groups, state_dim)`.
        initial: tensor `(batch, heads, head_dim, state_dim)` or `None` (zero).
        chunk_size: int or `None` (64).
        portable: function of these tensors with the same results, for gradients of gradients.

    Returns:
        Tuple `(y, last)` of tensors of the shapes of `x` and `initial`, or `None` outside of a CPU,
        for tensors of different precisions, under `torch.autocast` and for empty ones.
    """
    mixed = any(z is not None and z.dtype != x.dtype for z in (dt, A, B, C, initial))
    if mixed or x.device.type != "cpu" or 0 in x.shape or torch.is_autocast_enabled("cpu"):
        return None
    T = min(chunk_size or CHUNK_SIZE, x.shape[1])
    return _Dual.apply(portable, T, x, dt, A, B, C, initial)


class _Dual(torch.autograd.Function):
    @staticmethod
    def forward(ctx, portable, T, *tensors):
        ctx.portable, ctx.T = portable, T
        x, dt, A, B, C, initial = tensors
        y = torch.empty_like(x, memory_format=torch.contiguous_format)
        sequence = _Sequence(T, x, B)
        states = sequence.new_states()
        states[0] = 0 if initial is None else sequence.as_rows(initial)
        for rows, pieces in sequence.pieces():
            for first, steps, T in pieces:
                chunks = _Chunks(sequence, T, *(z[rows, steps] for z in (x, dt, B, C)), A)
                known = states[first : first + chunks.count + 1, rows]
                chunks.pass_states(known)
                chunks.outputs(known[:-1], chunks.cut(y[rows, steps]))
        ctx.save_for_backward(*tensors, y, states)
        return y, sequence.as_states(states[-1])

    @staticmethod
    def backward(ctx, d_y, d_last):
        *tensors, y, states = ctx.saved_tensors
        if needs_autograd(d_y, d_last):
            return None, None, *by_autograd(ctx.portable, tensors, (d_y, d_last))
        x, dt, A, B, C, initial = tensors
        d_x, d_dt, d_B, d_C = (
            torch.empty_like(z, memory_format=torch.contiguous_format) for z in (x, dt, B, C)
        )
        d_A = torch.zeros_like(A)
        sequence = _Sequence(ctx.T, x, B)
        # The adjoint of the state after a piece, at first after the last.
        later = sequence.as_rows(d_last).clone(memory_format=torch.contiguous_format)
        for rows, pieces in sequence.pieces():
            for first, steps, T in reversed(pieces):
                chunks = _Chunks(sequence, T, *(z[rows, steps] for z in (x, dt, B, C)), A)
                known = states[first : first + chunks.count + 1, rows]
                here = (z[rows, steps] for z in (d_y, y, d_x, d_dt, d_B, d_C))
                later[rows], slope = chunks.gradients(known, later[rows], *map(chunks.cut, here))
                d_A += slope
        d_initial = None if initial is None else sequence.as_states(later)
        return None, None, d_x, d_dt, d_A, d_B, d_C, d_initial


class _Sequence(Buffers):
    """Rows and chunks that are computed together, and the shapes of their states.

    States are `(groups, state_dim, heads of a group * head_dim)`: so a product of matrices reads
    them for all heads of a group at once.
    """

    def __init__(self, T, x, B):
        super().__init__(x)
        self._bounds = {}
        self.T, (self.batch, self.length, heads, self.head_dim) = T, x.shape
        self.groups, self.state_dim = B.shape[2:]
        self.of_group = heads // self.groups
        numbers = heads * T * max(T, self.head_dim)
        self._together = max(1, min(self.batch, TOGETHER // numbers))
        self._chunks = max(1, TOGETHER // (self._together * numbers))

    def pieces(self):
        """For some rows of the batch after others, the first chunk, the steps and T of each piece.

        A shorter chunk at the end is a piece of its own.
        """
        T, whole = self.T, self.length // self.T
        ends = [*range(0, whole, self._chunks), whole]
        pieces = [(i, slice(i * T, j * T), T) for i, j in itertools.pairwise(ends)]
        if self.length % T:
            pieces.append((whole, slice(whole * T, self.length), self.length % T))
        for row in range(0, self.batch, self._together):
            yield slice(row, row + self._together), pieces

    def new_states(self):
        """Memory for the states before each chunk and after the last."""
        chunks = -(-self.length // self.T)
        width = self.of_group * self.head_dim
        return self._like.new_empty((chunks + 1, self.batch, self.groups, self.state_dim, width))

    def by_head(self, states):
        """`(..., state_dim, width)` with an axis for the heads of a group."""
        return states.unflatten(-1, (self.of_group, self.head_dim))

    def product(self, name, a, b):
        """A batch of products of matrices, in the buffer of this name."""
        out = self.buffer(name, (a.shape[0], a.shape[1], b.shape[2]))
        return torch.bmm(a, b, out=out)

    def bounds(self, T):
        """What the logarithms `(..., t, j)` of decays lie between."""
        if T not in self._bounds:
            highest = torch.where(self._like.new_ones((T, T)).tril() > 0, torch.inf, 0.0)
            self._bounds[T] = self._like.new_full((), LOWEST), highest.to(self._like.dtype)
        return self._bounds[T]

    def as_rows(self, states):
        """`(batch, heads, head_dim, state_dim)` to `(batch, groups, state_dim, width)`."""
        return states.unflatten(1, (self.groups, self.of_group)).flatten(2, 3).mT

    def as_states(self, rows):
        """Undoes `as_rows`."""
        return rows.mT.reshape(self.batch, -1, self.head_dim, self.state_dim)


class _Chunks:
    """Some chunks of some rows.

    Tensors by step are `(chunks, rows, groups, T, heads of a group, head_dim)`, tensors by head
    `(chunks, rows, groups, heads of a group, T, head_dim)`.
    """

    def __init__(self, sequence, T, x, dt, B, C, A):
        self._sequence, self._T = sequence, T
        self.x, self.A = self.cut(x), A.view(sequence.groups, 1, -1)
        self.dt = self.cut(dt).contiguous()
        self.sums = (self.dt * self.A).cumsum(-2)
        self.from_start = self.sums.clamp(min=LOWEST).exp_()
        self.to_end = (self.sums[..., -1:, :] - self.sums).clamp_(min=LOWEST).exp_()
        self.gains = self.from_start[..., -1:, :, None]
        self.B, self.C = (self.cut(z)[..., 0, :].flatten(0, 2) for z in (B, C))
        self.count, self._by_head = len(self.x), self.x.transpose(3, 4).shape

    def cut(self, z):
        """`(rows, steps, ...)` by step."""
        by_group = z.unflatten(2, (self._sequence.groups, -1)).unflatten(1, (-1, self._T))
        return by_group.transpose(0, 1).transpose(2, 3)

    def pass_states(self, states):
        """The states after the chunks, in place; the first is that before them."""
        added = self._sequence.product("added", self.B.mT, self._written())
        states = self._sequence.by_head(states)
        for before, after, gain, new in zip(
            states[:-1], states[1:], self.gains, added.view(states[1:].shape), strict=True
        ):
            torch.addcmul(new, before, gain, out=after)

    def outputs(self, states, y):
        """y, in place, from the states before the chunks."""
        product = self._sequence.product
        weights = self._decays().mul_(self._scores()).flatten(0, 3)
        within = product("within", weights, self._driven()).view(self._by_head)
        read = product("by step", self.C, states.flatten(0, 2)).view(self.x.shape)
        torch.addcmul(within.transpose(3, 4), read, self.from_start[..., None], out=y)

    def gradients(self, states, later, d_y, y, d_x, d_dt, d_B, d_C):
        """The gradients of what has a step, in place.

        A sum s_t multiplies what step t reads and divides what it writes. Its gradient is therefore
        d_y_t y_t less d_u_t u_t, with the driven input u, and no matrix of T x T is summed for it.

        Args:
            states: tensor. Those before the chunks and after the last.
            later: tensor. The adjoint of the last.

        Returns:
            Tuple of the adjoint of the first state and the gradient of A.
        """
        product, buffer = self._sequence.product, self._sequence.buffer
        upstream = buffer("upstream", self._by_head).copy_(d_y.transpose(3, 4)).flatten(0, 3)
        decays, slopes = self._decays(), product("slopes", upstream, self._driven().mT)
        d_scores = slopes.view(decays.shape).mul_(decays).sum(3).flatten(0, 2).tril_()
        weights = decays.mul_(self._scores()).flatten(0, 3)
        d_within = product("within", weights.mT, upstream).view(self._by_head)

        read = buffer("by step", self.x.shape)
        read = _joined(torch.mul(d_y, self.from_start[..., None], out=read))
        before = states[:-1].flatten(0, 2)
        _put(d_C, torch.bmm(d_scores, self.B).baddbmm_(read, before.mT))
        adjoints = self._adjoints(later, product("added", self.C.mT, read))
        after = adjoints[1:].flatten(0, 2)
        _put(d_B, torch.bmm(d_scores.mT, self.C).baddbmm_(self._written(), after.mT))

        d_driven = product("by step", self.B, after).view(self.x.shape)
        d_driven = d_driven.mul_(self.to_end[..., None]).add_(d_within.transpose(3, 4))
        torch.mul(d_driven, self.dt[..., None], out=d_x)
        moved = d_driven.mul_(self.x).sum(-1)
        seen = torch.mul(d_y, y, out=d_driven).sum(-1)
        d_sums = seen.addcmul_(moved, self.dt, value=-1)
        met = self._sequence.by_head(adjoints[1:] * states[1:]).sum((-3, -1))
        d_sums[..., -1, :] += met
        d_log = d_sums.flip(-2).cumsum(-2).flip(-2)  # the gradient of dt A
        d_dt.copy_(moved.addcmul_(d_log, self.A))
        return adjoints[0], d_log.mul_(self.dt).sum((0, 1, 3)).flatten()

    def _driven(self):
        """dt x by head, as matrices."""
        driven = self._sequence.buffer("driven", self._by_head)
        return torch.mul(self.x.transpose(3, 4), self.dt.mT[..., None], out=driven).flatten(0, 3)

    def _written(self):
        """What reaches the end of dt x by step, the heads of a group side by side."""
        written = self._sequence.buffer("by step", self.x.shape)
        return _joined(torch.mul(self.x, (self.to_end * self.dt)[..., None], out=written))

    def _scores(self):
        """C_t B_j of each group for j <= t, else 0, to be broadcast over its heads."""
        scores = torch.bmm(self.C, self.B.mT).tril_()
        return scores.view(*self._by_head[:3], 1, self._T, self._T)

    def _decays(self):
        """exp(s_t - s_j) of each head for j <= t, else anything finite, in a buffer."""
        T, sums = self._T, self.sums.mT.contiguous()
        decays = self._sequence.buffer("decays", (*sums.shape, T))
        torch.sub(sums[..., None], sums[..., None, :], out=decays)
        return torch.clamp(decays, *self._sequence.bounds(T), out=decays).exp_()

    def _adjoints(self, last, read):
        """The adjoints of the states before the chunks and after the last, which is given."""
        shape = (self.count + 1, *last.shape)
        adjoints = self._sequence.buffer("adjoints", shape)
        adjoints[:-1].copy_(read.view(adjoints[:-1].shape))
        adjoints[-1] = last
        by_head = self._sequence.by_head(adjoints)
        for i in reversed(range(self.count)):
            by_head[i].addcmul_(by_head[i + 1], self.gains[i])
        return adjoints


def _joined(z):
    """Tensors by step as matrices, the heads of a group side by side."""
    return z.flatten(4).flatten(0, 2)


def _put(part, matrices):
    """Writes matrices of each group into a part of a tensor `(rows, steps, groups, state_dim)`."""
    part.copy_(matrices.view(*part.shape[:4], -1).unsqueeze(-2))
