"""A LitServe server as its documentation builds one: base64 in JSON, PIL, batches, torch eager.

    python benchmarks/rival_server.py MODEL WEIGHTS RUNTIME DEVICE BUNDLE PORT MAX_BATCH TIMEOUT
                                      WORKERS

RUNTIME may also be onnxruntime: then the whole model runs in it, from the bundle's segments, on the
CPU.
"""

from __future__ import annotations

import base64
import io
import sys
from pathlib import Path
from typing import Any

import litserve
import numpy as np
from PIL import Image


class Classifier(litserve.LitAPI):
    def setup(self, device: str) -> None:
        _, source, weights, runtime, _, bundle = sys.argv[:6]
        if runtime == "torch":
            import torch
            from splitpoint.partition.models.find import load_model

            module = load_model(source, weights).module.eval().to(device)

            def scores(pixels: np.ndarray) -> np.ndarray:
                with torch.inference_mode():
                    return module(torch.from_numpy(pixels).to(device)).cpu().numpy()
        else:
            from splitpoint.partition.bundle.bundle import open_bundle
            from splitpoint.partition.run.onnx_chain import OnnxChain

            opened = open_bundle(Path(bundle))
            chain = OnnxChain(opened)
            for segment in range(len(chain)):
                chain.load(segment)
            first = opened.manifest.boundaries[0].tensors[0].name
            last = opened.manifest.boundaries[-1].tensors[0].name

            def scores(pixels: np.ndarray) -> np.ndarray:
                state = chain.place({first: pixels})
                for segment in range(len(chain)):
                    state |= chain.step(segment, state)
                return np.asarray(state[last])

        self._scores = scores

    def decode_request(self, request: dict[str, str]) -> np.ndarray:
        picture = Image.open(io.BytesIO(base64.b64decode(request["image"]))).convert("RGB")
        return np.asarray(picture)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        return np.stack(inputs)

    def predict(self, x: np.ndarray) -> np.ndarray:
        return self._scores(x if x.ndim == 4 else x[np.newaxis])

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        return list(output)

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        return {"top": int(np.asarray(output).ravel().argmax())}


if __name__ == "__main__":
    device = sys.argv[4].partition(":")[0]
    port, max_batch, timeout_s, workers = sys.argv[6:]
    api = Classifier(max_batch_size=int(max_batch), batch_timeout=float(timeout_s))
    server = litserve.LitServer(
        api, accelerator=device, devices=1, workers_per_device=int(workers), timeout=60,
        restart_workers=False,
    )  # fmt: skip

    server.run(host="127.0.0.1", port=int(port), generate_client_file=False, log_level="warning")
