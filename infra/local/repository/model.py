"""A model of the local fleet: it infers for real, then waits until its declared service time is over.

The replicas of the local fleet share a few cores, so a second copy of a model would add no capacity, and there would
be nothing to place. The wait stands in for a device of each replica's own: with it, a copy serves 1000 / service_ms
requests a second, and two copies serve twice as many. The inference itself is real: the ONNX model runs on every
request, on one thread, and its outputs are what the client gets.

A service time can be changed in a running fleet: write milliseconds into PACE_FOLDER/NAME.
"""

import json
import time
from pathlib import Path

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        self.name = args["model_name"]
        config = json.loads(args["model_config"])
        parameters = {key: value["string_value"] for key, value in config["parameters"].items()}
        self.declared_s = float(parameters["service_ms"]) / 1000
        self.pace_file = Path(parameters["pace_folder"]) / self.name
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        file = Path(args["model_repository"]) / args["model_version"] / "model.onnx"
        self.session = ort.InferenceSession(str(file), options, ["CPUExecutionProvider"])
        self.inputs = [one["name"] for one in config["input"]]
        constants = json.loads(parameters["constants"])
        self.constants = {name: np.array(value, np.int64) for name, value in constants.items()}
        self.outputs = [output["name"] for output in config["output"]]

    def execute(self, requests):
        return [self.infer(request) for request in requests]

    def infer(self, request):
        start = time.monotonic()
        try:
            feeds = {name: pb.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            values = self.session.run(self.outputs, feeds | self.constants)
        except Exception as error:
            return pb.InferenceResponse(error=pb.TritonError(f"{self.name}: {error}"))
        time.sleep(max(0.0, start + self.service_s() - time.monotonic()))
        return pb.InferenceResponse([pb.Tensor(name, v) for name, v in zip(self.outputs, values, strict=True)])

    def service_s(self):
        """Seconds a request takes: what the pace file says, else what is declared."""
        try:
            return float(self.pace_file.read_text()) / 1000
        except (OSError, ValueError):
            return self.declared_s
