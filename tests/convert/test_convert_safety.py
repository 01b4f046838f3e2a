"""Files that are damaged, dishonest or hostile: a clear error, nothing run, nothing written."""

import io
import json
import os
import pickle
import struct
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from click.testing import CliRunner

from keras_ssm import cli
from keras_ssm.convert import convert_checkpoint
from keras_ssm.convert.containers.checkpoint_file import read_checkpoint_file
from keras_ssm.convert.containers.inert_unpickler import InertUnpickler
from tests.shared_data import checkpoint

pytestmark = pytest.mark.once("torch")

LAYOUT = "s4_layers.0.kernel.C"


def refused(path, match="Received"):
    """Asserts a quick and clear error that costs little memory and leaves nothing behind."""
    out = path.parent / "out"
    before, start = set(path.parent.iterdir()), time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=match) as error:
            convert_checkpoint(path, out)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert "Received: " in str(error.value)
    assert time.process_time() - start < 60  # a size that is not refused takes hours
    assert peak < 2**27
    assert set(path.parent.iterdir()) == before


def zipped(path, data, storages=(), compression=zipfile.ZIP_STORED, names=()):
    """A file in the layout of `torch.save` around a pickle."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", data)
        for key, content in dict(storages).items():
            archive.writestr(f"archive/data/{key}", content)
        for name in names:
            archive.writestr(name, b"x")
    return path


class Call:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def tensor_pickle(size, stride, count, storage=b"ctorch\nFloatStorage\n", key=b"0"):
    """A state dict of one tensor, as `torch.save` pickles it."""
    persistent = b"(X\x07\0\0\0storage" + storage + b"X" + struct.pack("<I", len(key)) + key
    persistent += b"X\x03\0\0\0cpu" + pickle.dumps(count, 2)[2:-1] + b"tQ"
    arguments = b"(" + persistent + b"K\0" + pickle.dumps(size, 2)[2:-1].split(b"q\0")[0]
    arguments += pickle.dumps(stride, 2)[2:-1].split(b"q\0")[0] + b"\x89"
    arguments += b"ccollections\nOrderedDict\n)Rt"
    name = b"X" + struct.pack("<I", len(LAYOUT)) + LAYOUT.encode()
    return b"\x80\x02}" + name + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


def test_a_pickle_runs_nothing(tmp_path):
    marker = tmp_path / "ran"
    functions = (
        Call(os.system, f"touch {marker}"),
        Call(eval, f"open({str(marker)!r}, 'w')"),
        Call(exec, f"open({str(marker)!r}, 'w')"),
        Call(os.mkdir, str(marker)),
        Call(bytearray, 10**13),
        Call(getattr, "x", "upper"),
    )
    for number, call in enumerate(functions):
        for data in (pickle.dumps({"model": call}, 2), pickle.dumps({"model": call}, 4)):
            refused(zipped(tmp_path / f"{number}.pth", data))
            bare = tmp_path / f"{number}.pkl"
            bare.write_bytes(data)
            refused(bare, "must be a file of PyTorch")
    assert not marker.exists()


def test_foreign_objects_are_inert():
    data = pickle.dumps([Call(os.getcwd), Call(print, "printed")], 2)
    found = InertUnpickler(data, {}).load()
    assert [type(x).foreign[1] for x in found] == ["getcwd", "print"]
    assert found[1].arguments == ("printed",)


def test_nested_copies_are_not_multiplied(tmp_path):
    content = ["x"]
    for _ in range(60):
        content = [content, content]
    refused(zipped(tmp_path / "laughs.pth", pickle.dumps({"model": content}, 2)))
    deep = []
    for _ in range(240):
        deep = [deep]
    refused(zipped(tmp_path / "deep.pth", pickle.dumps({"model": deep}, 2)), "200 deep")


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"\x80\x02]r\xff\xff\xff\x7f.", "memo index"),
        (b"\x80\x05\x96" + struct.pack("<Q", 2**40) + b"x.", "pickle"),
        (b"\x80\x02X\xff\xff\xff\x7fabc.", "pickle"),
        (b"\x80\x02\x82\x01.", "EXT1"),
        (b"\x80\x02]2\x86.", "DUP"),
        (b"\x80\x02}q\x00", "pickle"),
        (b"\x80\x02(X\x01\0\0\0atQ.", "outside the file"),
        (b"not a pickle", "pickle"),
    ],
    ids=["memo", "bytearray", "string", "extension", "copy", "cut", "reference", "text"],
)
def test_dishonest_pickles(tmp_path, data, match):
    refused(zipped(tmp_path / "bad.pth", data), match)


def test_an_honest_tensor_is_read(tmp_path):
    numbers = np.arange(6, dtype="f4")
    data = tensor_pickle((2, 3), (3, 1), 6)
    file = read_checkpoint_file(zipped(tmp_path / "a.pth", data, {"0": numbers.tobytes()}))
    np.testing.assert_array_equal(file.tensors[LAYOUT], numbers.reshape(2, 3))


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (((10**9, 10**3), (10**3, 1), 6), "storage of 6 numbers"),
        (((10**9, 10**3), (10**3, 1), 10**12), "1000000000"),
        (((10**6, 10**6), (0, 0), 6), "1000000"),
        (((2, 3), (-3, 1), 6), "stride"),
        (((2, 4), (3, 1), 6), "storage of 6 numbers"),
        (((2, 3), (3, 1), 7), "7 numbers in 24 bytes"),
        (((2, 3), (3, 1), 6, b"ctorch\nPickleStorage\n"), "PickleStorage"),
        (((2, 3), (3, 1), 6, b"ctorch\nFloatStorage\n", b"../0"), "no storage"),
    ],
    ids=["size", "absurd", "expanded", "negative", "beyond", "short", "kind", "key"],
)
def test_dishonest_tensors(tmp_path, arguments, match):
    storages = {"0": np.arange(6, dtype="f4").tobytes()}
    refused(zipped(tmp_path / "bad.pth", tensor_pickle(*arguments), storages), match)


def test_dishonest_zip_files(tmp_path):
    data = tensor_pickle((2, 3), (3, 1), 6)
    escaping = zipped(tmp_path / "a.pth", data, names=["../../escaped"])
    refused(escaping, "outside the file")
    refused(zipped(tmp_path / "b.pth", data, names=["/escaped"]), "outside the file")
    bomb = tmp_path / "c.pth"
    zipped(bomb, data, {"0": bytes(2**24)}, zipfile.ZIP_DEFLATED)
    refused(bomb, r"of \d+ bytes in")
    refused(zipped(tmp_path / "d.pth", data, names=["other/data.pkl"]), "2 entries")
    assert not (tmp_path.parent / "escaped").exists()


@pytest.mark.parametrize(
    "name",
    ["a_example_s4d_postnorm.pth", "c_s4_lra_cifar_pl_omegaconf.ckpt", "s5_last_ln_post.msgpack"],
)
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_truncated_files(tmp_path, name, share):
    data = checkpoint(name).read_bytes()
    path = tmp_path / name
    path.write_bytes(data[: int(share * len(data))])
    refused(path)


def test_truncated_older_file(tmp_path):
    torch = pytest.importorskip("torch")
    torch.save({LAYOUT: torch.zeros(8)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").unlink()
    for size in (20, len(data) // 2, len(data) - 4):
        (tmp_path / "b.pth").write_bytes(data[:size])
        refused(tmp_path / "b.pth")


def test_damaged_numbers(tmp_path):
    data = bytearray(checkpoint("a_example_s4d_postnorm.pth").read_bytes())
    position = data.index(b"s4_layers.0.D") + 9000  # among the numbers
    data[position] ^= 1
    (tmp_path / "a.pth").write_bytes(bytes(data))
    refused(tmp_path / "a.pth", "CRC")


def test_dishonest_msgpack(tmp_path):
    msgpack = pytest.importorskip("msgpack")
    content = msgpack.packb(((10**6, 10**6), "float32", b"\0" * 8))
    for number, tree in enumerate(
        (
            {"params": msgpack.ExtType(1, content)},
            {"params": msgpack.ExtType(9, b"")},
            {"params": msgpack.ExtType(1, msgpack.packb(((1,), "object", b"\0" * 8)))},
            {"params": 1},
        )
    ):
        path = tmp_path / f"{number}.msgpack"
        path.write_bytes(msgpack.packb(tree))
        refused(path)
    for data in (b"\xdf\xff\xff\xff\xff", b"\x81\xa1a\xdd\xff\xff\xff\xff", b"\x81" * 4000):
        (tmp_path / "b.msgpack").write_bytes(data)
        refused(tmp_path / "b.msgpack")


def test_dishonest_npz(tmp_path):
    header = io.BytesIO()
    description = {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
    np.lib.format.write_array_header_1_0(header, description)
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr(f"{LAYOUT}.npy", header.getvalue())
    refused(tmp_path / "a.npz", "1000000")
    np.savez(tmp_path / "b.npz", **{LAYOUT: np.array([{}], dtype=object)})
    refused(tmp_path / "b.npz")
    np.savez_compressed(tmp_path / "c.npz", **{LAYOUT: np.zeros(2**24, "f4")})
    refused(tmp_path / "c.npz", "67108992 bytes")


def test_dishonest_safetensors(tmp_path):
    pytest.importorskip("safetensors")
    header = {LAYOUT: {"dtype": "F32", "shape": [10**6, 10**6], "data_offsets": [0, 4 * 10**12]}}
    text = json.dumps(header).encode()
    for data in (struct.pack("<Q", len(text)) + text, struct.pack("<Q", 2**62) + text):
        (tmp_path / "a.safetensors").write_bytes(data)
        refused(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 100, b"hello, this is text", b"\x89HDF\r\n\x1a\n"], ids=range(4)
)
def test_files_of_another_kind(tmp_path, content):
    (tmp_path / "a.bin").write_bytes(content)
    refused(tmp_path / "a.bin", "must be a file of PyTorch, flax msgpack, npz or safetensors")


def test_the_command_says_it_in_one_line(tmp_path):
    (tmp_path / "a.pth").write_bytes(b"no checkpoint")
    result = CliRunner().invoke(
        cli.main, ["convert", str(tmp_path / "a.pth"), str(tmp_path / "out")]
    )
    assert result.exit_code == 1 and "Received: a file that starts with" in result.output
    result = CliRunner().invoke(cli.main, ["convert", "missing.pth", str(tmp_path / "out")])
    assert result.exit_code == 1 and "Received: path='missing.pth'" in result.output
    assert not (tmp_path / "out").exists()
