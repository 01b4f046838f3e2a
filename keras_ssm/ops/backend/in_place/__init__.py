"""Parts of `Mamba` as programs of XLA that write in place, and whose gradients compute them again.

Their loops take some steps of a sequence after others.
"""
