"""An image tower in int8 on the CPU, by ONNX Runtime: weights are quantized once, activations dynamically.

It speeds up the matrix products of transformers and leaves convolutions as they are. Needs UGRIE's `int8` extra. The quantized
tower is cached (`ugrie.cache`) under a digest of its weights, because quantizing takes longer than loading.
"""

import hashlib
import logging
import os
import tempfile

import torch
from torch import Tensor, nn

from ugrie.cache import cache_folder
from ugrie.errors import GivenError


class Int8Error(GivenError):
    """A tower that can't run in int8. The message gives the reason and the remedy."""


class Int8Tower(nn.Module):
    """Turns float32 pixels [batch, 3, size, size] into embeddings [batch, dim] as the original tower does, in int8."""

    def __init__(self, tower: nn.Module, crop_size: int, threads: int = 1):
        super().__init__()
        if not any(isinstance(module, nn.Linear | nn.MultiheadAttention) for module in tower.modules()):
            raise Int8Error("int8 speeds up the matrix products of transformers, and this tower has none: leave the precision at fp32")
        try:
            import onnxruntime
        except ModuleNotFoundError as error:
            raise Int8Error(f"int8 needs the package {error.name}: pip install 'ugrie[int8]'") from None
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Threads that spin while they wait would take the cores from decoding and from the rest of the model.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(_quantized(tower, crop_size), options, providers=["CPUExecutionProvider"])

    def forward(self, pixels: Tensor) -> Tensor:
        return torch.from_numpy(self.session.run(None, {"pixels": pixels.contiguous().numpy()})[0])


def _quantized(tower: nn.Module, crop_size: int) -> str:
    """Return the path of the tower in int8, quantizing it if it is not cached."""
    from onnxruntime import __version__
    from onnxruntime.quantization import QuantType, quantize_dynamic

    state = hashlib.sha256(f"{torch.__version__} {__version__} {crop_size} {tower}".encode())
    for name, tensor in tower.state_dict().items():
        state.update(name.encode() + tensor.float().numpy().tobytes())
    folder = cache_folder("int8")
    path = folder / f"{state.hexdigest()[:32]}.onnx"
    if path.is_file():
        return str(path)
    with tempfile.TemporaryDirectory(dir=folder) as draft:
        example = torch.zeros(2, 3, crop_size, crop_size)
        batch = torch.export.Dim("batch", min=1, max=4096)
        level = logging.getLogger("onnxscript").level
        logging.getLogger("onnxscript").setLevel(logging.ERROR)
        program = torch.onnx.export(
            tower.float(), (example,), input_names=["pixels"], dynamo=True, dynamic_shapes=({0: batch},), verbose=False
        )
        logging.getLogger("onnxscript").setLevel(level)
        assert program is not None
        program.save(f"{draft}/fp32.onnx")
        quantize_dynamic(f"{draft}/fp32.onnx", f"{draft}/int8.onnx", weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
        os.replace(f"{draft}/int8.onnx", path)  # atomic: other actors on this machine use the cache, too
    return str(path)
