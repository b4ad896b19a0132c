#!/usr/bin/env python3
"""Write this folder's archives with the PyTorch that is installed: VERSION-WHAT.pt, a few KB each.

    python make.py [FOLDER]     (the default is the folder of this script)

The values are repeated in src/model/torch.rs, whose tests hold every archive to them.
"""

import io
import sys
import tempfile
from collections import OrderedDict
from pathlib import Path

import torch

VERSION = torch.__version__.split("+")[0]
# torch.save names the archive's root folder after the file. The central directory's first entry, ROOT/data.pkl,
# is then 46 + 21 + 9 = 76 bytes long, as long as the zip64 records that PyTorch puts behind the directory.
REFUSED_STEM = "two_layer_transformer"
assert len(REFUSED_STEM) == 21


def ramp(*shape, start=0):
    n = 1
    for size in shape:
        n *= size
    return ((torch.arange(n, dtype=torch.float64) + start) / 2).reshape(shape).float()


def state_dict():
    """As a HookedTransformer's, much too small."""
    return OrderedDict(
        [
            ("embed.W_E", ramp(3, 2, start=-2)),
            ("blocks.0.attn.W_Q", ramp(1, 2, 2, start=1)),
            ("blocks.0.attn.mask", torch.ones(2, 2).tril().bool()),
            ("blocks.0.attn.IGNORE", torch.tensor(float("-inf"))),
            ("unembed.b_U", ramp(3)),
        ]
    )


def dtypes():
    tensors = {"none": torch.zeros(0, 3), "scalar": torch.tensor(-1e5)}
    tensors["f64"] = torch.tensor([0.1, float("-inf"), float("nan")], dtype=torch.float64)
    tensors["f32"] = torch.tensor([0.1, float("inf"), -0.0], dtype=torch.float32)
    tensors["f16"] = torch.tensor([1.5, -0.25], dtype=torch.float16)
    tensors["bf16"] = torch.tensor([3.0, -0.0078125], dtype=torch.bfloat16)
    for name, dtype in [("i64", torch.int64), ("i32", torch.int32), ("i16", torch.int16), ("i8", torch.int8)]:
        limits = torch.iinfo(dtype)
        tensors[name] = torch.tensor([limits.min, limits.max], dtype=dtype)
    tensors["u8"] = torch.tensor([0, 255], dtype=torch.uint8)
    tensors["bool"] = torch.tensor([True, False, True])
    return tensors


def views():
    base = ramp(3, 4)
    return {
        "base": base,
        "tied": base,
        "transposed": base.T,
        "row": base[1],
        "corner": base[1:, 2:],
        "every_other": base[:, ::2],
        "expanded": torch.tensor([5.0]).expand(2, 3),
        "parameter": torch.nn.Parameter(base[2]),
    }


def training():
    """What a training loop saves to go on later."""
    moment = {"step": torch.tensor(7.0), "exp_avg": ramp(2)}
    optimizer = {"state": {0: moment}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999), "params": [0]}]}
    return {
        "epoch": 3,
        "loss": torch.tensor(0.5),
        "model_state_dict": state_dict(),
        "optimizer_state_dict": optimizer,
    }


def lightning():
    """What PyTorch Lightning saves for a module whose attribute `model` is the transformer."""
    inner = OrderedDict((f"model.{name}", tensor) for name, tensor in state_dict().items())
    return {"epoch": 3, "state_dict": inner, "optimizer_states": [{"state": {0: {"exp_avg": ramp(2)}}}]}


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent

    def save(what, value, stem="model", **options):
        with tempfile.TemporaryDirectory() as scratch:
            path = Path(scratch) / f"{stem}.pt"
            torch.save(value, path, **options)
            (folder / f"{VERSION}-{what}.pt").write_bytes(path.read_bytes())

    save("plain", state_dict())
    save("refused", state_dict(), stem=REFUSED_STEM)
    save("accents", state_dict(), stem="modèle été")
    save("protocol4", state_dict(), pickle_protocol=4)
    save("dtypes", dtypes())
    save("views", views())
    save("nested", {"state_dict": state_dict(), "epoch": 3})
    save("training", training())
    save("lightning", lightning(), stem=REFUSED_STEM)
    save("legacy", state_dict(), _use_new_zipfile_serialization=False)
    save("legacy_dtypes", dtypes(), _use_new_zipfile_serialization=False)
    save("legacy_views", views(), _use_new_zipfile_serialization=False)

    through_memory = io.BytesIO()
    torch.save(state_dict(), through_memory)
    (folder / f"{VERSION}-memory.pt").write_bytes(through_memory.getvalue())

    if hasattr(torch.serialization, "set_crc32_options"):
        torch.serialization.set_crc32_options(False)
        save("unchecked", state_dict(), stem=REFUSED_STEM)
        torch.serialization.set_crc32_options(True)
    try:
        from torch.utils.serialization import config
    except ImportError:
        return
    config.save.storage_alignment = 512
    save("aligned", state_dict())


main()
