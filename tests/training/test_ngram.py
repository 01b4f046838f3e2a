"""The n-gram against its definition, one n-gram at a time."""

import numpy as np
import pytest

from keras_ssm.training import NGram

pytestmark = pytest.mark.once("torch")


def by_definition(text, context, byte, order):
    """Interpolated Kneser-Ney from all n-grams of a text, by sets and sums."""

    def grams(n):
        return [tuple(text[i : i + n]) for i in range(len(text) - n + 1)]

    def count(gram):
        if len(gram) == order:
            return grams(order).count(gram)
        return len({longer for longer in grams(len(gram) + 1) if longer[1:] == gram})

    def probability(context):
        n = len(context) + 1
        counts = {gram: count(gram) for gram in set(grams(n)) if count(gram)}
        once, twice = (list(counts.values()).count(i) for i in (1, 2))
        discount = once / (once + 2 * twice) if once else 0.5
        own = {gram: c for gram, c in counts.items() if gram[:-1] == context}
        shorter = probability(context[1:]) if context else 1.0 / 256
        if not own:
            return shorter
        kept = max(own.get((*context, byte), 0) - discount, 0.0)
        return (kept + discount * len(own) * shorter) / sum(own.values())

    return probability(context)


@pytest.mark.parametrize("order", [1, 3])
def test_probabilities_are_those_of_the_definition(order):
    text = np.frombuffer(b"abracadabra, cabbage", np.uint8)
    model = NGram(order)
    model.fit(text)
    ids = np.frombuffer(b"abradab xbag", np.uint8)
    found = model.probabilities(np.stack([ids, ids[::-1]]))
    for row, bytes_ in zip(found, (ids, ids[::-1]), strict=True):
        for t, value in enumerate(row, 1):
            context = tuple(bytes_[max(0, t - order + 1) : t])
            expected = by_definition(text, context, bytes_[t], order)
            assert value == pytest.approx(expected, rel=1e-12)


def test_what_may_follow_adds_up_to_one():
    model = NGram(4)
    model.fit(np.frombuffer(b"she sells sea shells by the sea shore", np.uint8))
    for context in (b"he s", b"zzzz", b"s"):
        rows = np.array([[*context, byte] for byte in range(256)])
        assert model.probabilities(rows)[:, -1].sum() == pytest.approx(1.0)
    assert [model.probabilities(np.arange(n)).shape for n in range(1, 5)] == [
        (n - 1,) for n in range(1, 5)
    ]
    sizes = [len(level.grams) for level in model.levels]
    assert model.count_params() == sum(sizes) and sizes[0] < sizes[1] < sizes[2]


def test_texts_that_cannot_be_counted_are_refused():
    with pytest.raises(ValueError, match=r"`ids` must be more than 5 bytes.*Received"):
        NGram().fit(np.arange(5))
    with pytest.raises(ValueError, match=r"`order`.*Received"):
        NGram(8)
