"""Memory in which PyTorch computes a sequence chunk by chunk, some features at a time."""

import torch

from keras_ssm.ops.backend.torch.products import product_by_feature

# Numbers in a buffer, measured: see docs/performance.md.
BLOCK_SAMPLES = 2**20

# The same on a GPU, for states that its kernels pass on: few launches, and little beside the
# sequence. Not measured.
GPU_BLOCK_SAMPLES = 2**24


class Buffers:
    """Memory that is used again under the same name.

    Args:
        like: tensor. Buffers have its dtype and device.
    """

    def __init__(self, like):
        self._like, self._memory = like, {}

    def buffer(self, name, shape):
        """Memory of this name, with whatever was in it."""
        size = torch.Size(shape).numel()
        if name not in self._memory or self._memory[name].numel() < size:
            self._memory[name] = self._like.new_empty(size)
        return self._memory[name][:size].view(shape)


class Workspace(Buffers):
    """Buffers that serve one block of features after another.

    New memory costs a CPU more than the arithmetic on it, and buffers of this size stay in its
    caches. On other devices all features make one block, unless few launches suffice for each.

    Args:
        like: tensor `(batch, length, features)`. A sequence of this size, dtype and device.
        T: int. Steps in a chunk.
    """

    def __init__(self, like, T):
        super().__init__(like)
        self.batch, self.length, self.features = like.shape
        self.T, self.chunks = T, -(-self.length // T)

    def blocks(self, few_launches=False):
        """Slices of the features."""
        size, on_cpu = self.features, self._like.device.type == "cpu"
        if on_cpu or few_launches:
            numbers = BLOCK_SAMPLES if on_cpu else GPU_BLOCK_SAMPLES
            size = max(1, numbers // (self.batch * self.chunks * self.T))
        for start in range(0, self.features, size):
            yield slice(start, min(start + size, self.features))

    def product(self, name, a, b):
        """The product of rows and the matrices of each feature.

        Args:
            name: str. Buffer that takes it where it can.
            a: tensor `(features, batch * chunks, inputs)`.
            b: tensor `(features, inputs, outputs)`.

        Returns:
            Tensor `(features, batch * chunks, outputs)`, of a large product laid out as `read`
            does.
        """
        return product_by_feature(a, b, lambda shape: self.buffer(name, shape))

    def rows(self, name, like):
        """A buffer of the shape and memory layout of a `product`: small ones are contiguous."""
        features, rows, size = like.shape
        if like.is_contiguous():
            return self.buffer(name, like.shape)
        return self.buffer(name, (rows, features, size)).transpose(0, 1)

    def sequence(self, channels):
        """New memory `(batch, whole chunks, channels * features)` for `write`."""
        return self._like.new_empty((self.batch, self.chunks * self.T, channels * self.features))

    def finished(self, sequence):
        """A sequence without what fills its last chunk."""
        return sequence[:, : self.length].contiguous()

    def read(self, name, sequence, block):
        """Some features of a sequence, as rows of matrices, in the buffer of this name.

        Args:
            name: str.
            sequence: tensor `(batch, length, channels * features)`.
            block: slice of the features.

        Returns:
            Tensor `(features, batch * chunks, channels * T)`. In memory the features of a chunk
            lie beside each other: transposing one chunk at a time is fastest.
        """
        T, channels = self.T, sequence.shape[2] // self.features
        chunks, features = self.batch * self.chunks, block.stop - block.start
        if self.length % T:
            sequence = self._filled_up(f"whole {name}", sequence)
        rows = self.buffer(name, (chunks, features, channels * T))
        by_channel = rows.view(chunks, features, channels, T)
        for c, samples in enumerate(self._by_channel(sequence, block)):
            by_channel[:, :, c].copy_(samples.mT)
        return rows.transpose(0, 1)

    def write(self, sequence, rows, block):
        """Writes rows `(features, batch * chunks, channels * T)` into a `sequence`."""
        by_channel = rows.unflatten(2, (-1, self.T))
        for c, samples in enumerate(self._by_channel(sequence, block)):
            samples.copy_(by_channel[:, :, c].permute(1, 2, 0))

    def _by_channel(self, sequence, block):
        """Views `(batch * chunks, T, features)` of a sequence."""
        channels = sequence.shape[2] // self.features
        by_chunk = sequence.reshape(-1, self.T, channels, self.features)
        return by_chunk[..., block].unbind(2)

    def _filled_up(self, name, sequence):
        if name not in self._memory:
            rest = self.chunks * self.T - self.length
            self._memory[name] = torch.nn.functional.pad(sequence, (0, 0, 0, rest))
        return self._memory[name]
