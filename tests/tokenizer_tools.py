"""A small tokenizer of the kind of GPT-NeoX, and lines that tell tokenizers apart."""

import random
import unicodedata

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

CORPUS = [
    "State-space models read a sequence step by step, and keep a state of one size.",
    "def step(self, inputs, state):\n    return self.A @ state + self.B @ inputs\n",
    "    for i in range(10):\n        print(i)\n\n\n",
    "Zoë naïve café 東京 русский текст 😀 it's they'll 's 's 12345 3.14",
]


def train(path):
    """Writes a `tokenizer.json`: NFC, bytes, end 0, padding 1, and added runs of 24 to 2 spaces.

    Returns:
        `tokenizers.Tokenizer`.
    """
    library = tokenizers.Tokenizer(models.BPE())
    library.normalizer = normalizers.NFC()
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    library.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=340,
        special_tokens=["<|endoftext|>", "<|padding|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    library.train_from_iterator(CORPUS * 3, trainer)
    library.add_tokens([" " * n for n in range(24, 1, -1)])
    library.save(str(path))
    return library


def mixed_lines(count):
    """Text, code, Unicode of all planes in both normal forms, runs of spaces, special tokens."""
    rng = random.Random(0)
    blocks = [(0x20, 0x7F), (0xA0, 0x24F), (0x300, 0x370), (0x400, 0x4FF), (0x600, 0x6FF)]
    blocks += [(0x900, 0x97F), (0x2000, 0x206F), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3)]
    blocks += [(0x1F300, 0x1FAFF), (0x0, 0x20)]
    pieces = [*CORPUS, "<|endoftext|>", "<|padding|>", "\t\t", "\r\n\n", "\u00a0 \u3000"]
    lines = ["", " ", "a  b", "\n\n\nnew", "e\u0301"]
    while len(lines) < count:
        line = []
        for _ in range(rng.randint(1, 12)):
            character = chr(rng.randrange(*rng.choice(blocks)))
            decomposed = unicodedata.normalize("NFD", character)
            run = " " * rng.randint(1, 60)
            line.append(rng.choice([character, decomposed, run, rng.choice(pieces)]))
        lines.append("".join(line))
    return lines
