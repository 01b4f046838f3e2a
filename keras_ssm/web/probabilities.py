import numpy as np


def softmax(logits):
    """Probabilities of logits, along the last axis."""
    powers = np.exp(np.asarray(logits, "float64") - np.max(logits, axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def named(model, probabilities):
    """Dict from the name of each class to its probability."""
    names = model.id2label or {i: str(i) for i in range(len(probabilities))}
    return {names[i]: float(value) for i, value in enumerate(probabilities)}
