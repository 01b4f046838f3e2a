"""What goes into `generate` and comes out of it: texts or token ids, of one row or of many."""

import numpy as np

from keras_ssm.models.backbone_layers import check_token_ids
from keras_ssm.models.trainer.targets import to_numpy

KINDS = "a text, a list of texts, token ids `(length,)` or `(batch, length)`, a list of rows of "
KINDS += "ids, or a dict of `token_ids` and `padding_mask`"


class Prompts:
    """Rows of token ids, and the form in which they came.

    Args:
        rows: list of arrays, of any integers until they are checked.
        form: str. `"text"`, `"list"` (of ids), `"arrays"` (a list of them), `"array"`, `"dict"`.
        single: bool. Whether it was one prompt rather than a batch.
        width: int or `None`. Length to which the ids of a dict were padded.
    """

    def __init__(self, rows, form, single, width=None):
        self.rows = rows
        self.form = form
        self.single = single
        self.width = width

    def written(self, rows, pad, width=None):
        """Rows of ids in the form of the prompts; `width` is that of a dict."""
        if self.form == "list":
            rows = [row.tolist() for row in rows]
            return rows[0] if self.single else rows
        if self.form == "arrays":
            return rows
        if self.form == "array" and self.single:
            return rows[0]
        width = max([width or 0, *map(len, rows)])
        ids, mask = np.full((len(rows), width), pad, "int32"), np.zeros((len(rows), width), bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)], mask[i, : len(row)] = row, True
        if self.form == "array":
            return ids
        if self.single:
            ids, mask = ids[0], mask[0]
        return {"token_ids": ids, "padding_mask": mask}

    def piece(self, rows):
        """What a stream yields of some tokens of each row."""
        if self.form == "list":
            rows = [row.tolist() for row in rows]
        return rows[0] if self.single else rows


def read_prompts(inputs, preprocessor, vocabulary_size, state):
    """Brings what a person passes to `generate` to `Prompts`.

    Args:
        inputs: see `Generation.generate`.
        preprocessor: what makes ids of texts, or `None`.
        vocabulary_size: int. Rows of the table.
        state: `GenerationState` or `None`. Prompts after it may be empty.

    Returns:
        `Prompts`.

    Raises:
        ValueError: for inputs of no kind, ids that are none, and empty prompts.
    """
    if inputs is None:
        if state is None:
            raise ValueError(
                f"`inputs` must be {KINDS}; `None` goes on from a `state`. Received: inputs=None"
            )
        form, single = state.form
        return Prompts([np.zeros(0, "int32")] * state.batch_size, form, single)
    texts, single = _texts(inputs)
    if texts is not None:
        rows = _tokenized(texts, preprocessor, state is not None)
        prompts = Prompts(rows, "text", single)
    else:
        prompts = _of_ids(inputs)
    if state is not None and len(prompts.rows) != state.batch_size:
        raise ValueError(
            "`inputs` must have one prompt for each row of the `state`, which may be empty. "
            f"Received: {len(prompts.rows)} prompts, a state of {state.batch_size} rows"
        )
    if not prompts.rows:
        raise ValueError(f"`inputs` must hold at least one prompt. Received: inputs={inputs!r}")
    for i, row in enumerate(prompts.rows):
        check_token_ids(row, vocabulary_size)
        if state is None and not len(row):
            raise ValueError(
                "Each prompt of `inputs` must have at least one token, such as that of a start of "
                f"a text: there is nothing to go on from. Received: prompt {i} is empty"
            )
    prompts.rows = [row.astype("int32") for row in prompts.rows]
    return prompts


def _texts(inputs):
    """The texts that these are, or `None`, and whether there is one."""
    value = inputs
    if hasattr(value, "dtype") and not isinstance(value, np.ndarray):
        dtype = str(value.dtype)
        if "string" in dtype:  # a tensor of TensorFlow
            value = np.asarray(value.numpy(), object)
    if isinstance(value, np.ndarray) and value.dtype.kind in "OSU":
        value = value.tolist()
    if isinstance(value, (str, bytes)):
        return [_text(value)], True
    if isinstance(value, (list, tuple)) and len(value) and isinstance(value[0], (str, bytes)):
        if not all(isinstance(text, (str, bytes)) for text in value):
            raise ValueError(f"`inputs` must be {KINDS}. Received: a list of several kinds")
        return [_text(text) for text in value], False
    return None, False


def _text(text):
    # As for training: bytes that are no UTF-8 come back in a tokenizer of bytes.
    return text.decode("utf-8", "surrogateescape") if isinstance(text, bytes) else text


def _tokenized(texts, preprocessor, goes_on):
    """Rows of ids of texts, none of them cut."""
    if not hasattr(preprocessor, "generate_preprocess"):
        raise ValueError(
            "`inputs` that are texts need a model with a `preprocessor` that has "
            "`generate_preprocess`, such as `SSMCausalLMPreprocessor`; pass token ids otherwise. "
            f"Received: preprocessor={preprocessor}"
        )
    width = max(len(text.encode("utf-8", "surrogateescape")) for text in texts) + 16
    while True:
        batch = preprocessor.generate_preprocess(list(texts), sequence_length=width)
        ids, mask = (np.atleast_2d(to_numpy(batch[k])) for k in ("token_ids", "padding_mask"))
        rows = [row[valid.astype(bool)] for row, valid in zip(ids, mask, strict=True)]
        if max(map(len, rows), default=0) < width:
            break
        width *= 4  # a prompt may have been cut; few have more tokens than bytes
    if goes_on and getattr(preprocessor, "add_start_token", False):
        start = np.atleast_1d(preprocessor.tokenizer.start_token_id)
        cut = len(start)
        rows = [row[cut:] if np.array_equal(row[:cut], start) else row for row in rows]
    return rows


def _of_ids(inputs):
    if isinstance(inputs, dict):
        return _of_dict(inputs)
    if hasattr(inputs, "shape") and not hasattr(inputs, "to_list"):
        ids = to_numpy(inputs)
        if ids.ndim not in (1, 2):
            raise ValueError(f"`inputs` must be {KINDS}. Received: inputs.shape={ids.shape}")
        _check_integers(ids)
        return Prompts([ids] if ids.ndim == 1 else list(ids), "array", ids.ndim == 1)
    rows = inputs.to_list() if hasattr(inputs, "to_list") else inputs  # a ragged tensor
    if not isinstance(rows, (list, tuple)):
        raise ValueError(f"`inputs` must be {KINDS}. Received: {type(inputs).__name__}")
    single = bool(rows) and all(np.ndim(row) == 0 for row in rows)
    rows = [rows] if single else rows
    arrays = all(hasattr(row, "shape") for row in rows) and bool(rows) and not single
    checked_rows = []
    for row in rows:
        row = to_numpy(row) if hasattr(row, "shape") else np.asarray(row)
        if row.ndim != 1:
            raise ValueError(f"`inputs` must be {KINDS}. Received: a row of shape {row.shape}")
        _check_integers(row)
        checked_rows.append(row)
    return Prompts(checked_rows, "arrays" if arrays else "list", single)


def _of_dict(inputs):
    unknown = sorted(set(inputs) - {"token_ids", "padding_mask"})
    if unknown or "token_ids" not in inputs:
        raise ValueError(
            "`inputs` that are a dict must have `token_ids` and, optionally, `padding_mask`. "
            f"Received: keys {sorted(inputs)}"
        )
    mask = inputs.get("padding_mask")
    prompts = _of_ids(inputs["token_ids"])
    width = max(map(len, prompts.rows), default=0)
    rows = prompts.rows
    if mask is not None:
        masks = [np.asarray(to_numpy(row), bool) for row in ([mask] if prompts.single else mask)]
        if [row.shape for row in masks] != [row.shape for row in rows]:
            raise ValueError(
                "`padding_mask` of `inputs` must have the shape of `token_ids`. "
                f"Received: rows of shapes {[m.shape for m in masks][:3]} for "
                f"{[row.shape for row in rows][:3]}"
            )
        rows = [row[valid] for row, valid in zip(rows, masks, strict=True)]
    return Prompts(rows, "dict", prompts.single, None if mask is None else width)


def _check_integers(ids):
    if ids.size and ids.dtype.kind not in "iu":
        raise ValueError(f"Token ids of `inputs` must be integers. Received: dtype {ids.dtype}")
