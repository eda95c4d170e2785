"""Networks on the CPU through OpenVINO, the other runtime (extra `openvino`): faster on cores with AVX-512."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from streamer.device.base import Tensor
from streamer.errors import DeviceError, ModelError
from streamer.models import ModelSpec


class OpenvinoSession:
    """A network in OpenVINO, on as many threads as it is given and pinned to none."""

    def __init__(self, spec: ModelSpec, threads: int = 1) -> None:
        """Raises DeviceError if OpenVINO is not installed, ModelError if it refuses the file."""
        try:
            import openvino
        except ImportError as error:
            raise DeviceError(
                "OpenVINO is not installed: pip install streamer-anonymizer[openvino], or use runtime onnxruntime"
            ) from error
        options = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        try:
            self._model = openvino.Core().compile_model(str(spec.weights), "CPU", options)
        except RuntimeError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ModelError(f'"{spec.name}" cannot be loaded ({reason}): {spec.weights}') from error
        self._request = self._model.create_infer_request()

    def __call__(self, batch: Tensor) -> Sequence[NDArray[np.float32]]:
        """Outputs in the model's order; new arrays at each call. Raises ModelError."""
        try:
            found = self._request.infer({0: batch})
        except RuntimeError as error:
            raise ModelError(f"the network failed: {str(error).strip().splitlines()[-1]}") from error
        return [np.array(found[output], np.float32) for output in self._model.outputs]
