"""The peers of docs/serving.md: the same model as ONNX file, behind servers written in Python.

    pip install fastapi uvicorn litserve onnxruntime pillow numpy
    structtoken export MODEL -o model.onnx --size 256x256
    python benches/serving.py fastapi model.onnx --port 9001
    python benches/serving.py litserve model.onnx --port 9002
    python scripts/serve/load.py http://127.0.0.1:9001 photo.png closed --clients 1,4,16
    python scripts/serve/load.py http://127.0.0.1:9002 photo.png closed --clients 1,4,16 --multipart

Both take an image at POST /v1/segment, FastAPI as the body and LitServe, which takes no bare bytes, as a field of a form. They answer with
its labels as .npy, as `structtoken serve` does with ?output=npy.
"""

import argparse
import io

import litserve
import numpy as np
import onnxruntime
import uvicorn
from fastapi import Body, FastAPI, Request, Response
from PIL import Image
from starlette.concurrency import run_in_threadpool


def session(path, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def decode(body):
    return np.asarray(Image.open(io.BytesIO(body)).convert("RGB"))


def encode(labels):
    file = io.BytesIO()
    np.save(file, labels)
    return file.getvalue()


def serve_fastapi(path, port, threads):
    app, model = FastAPI(), session(path, threads)

    def labels(body):
        return encode(model.run(["labels"], {"image": decode(body)[None]})[0][0])

    @app.get("/healthz")
    def health():
        return {}

    @app.post("/v1/segment")
    async def segment(body: bytes = Body(media_type="application/octet-stream")):
        return Response(await run_in_threadpool(labels, body), media_type="application/octet-stream")

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


class Segment(litserve.LitAPI):
    """Labels images in batches of up to 8, which LitServe gathers."""

    def __init__(self, path, threads):
        super().__init__(max_batch_size=8, batch_timeout=0.005, api_path="/v1/segment")
        self.path, self.threads = path, threads

    def setup(self, device):
        self.model = session(self.path, self.threads)

    def decode_request(self, request: Request):
        return decode(request["image"].file.read())

    def batch(self, images):
        return np.stack(images)

    def predict(self, images):
        return self.model.run(["labels"], {"image": images})[0]

    def unbatch(self, labels):
        return list(labels)

    def encode_response(self, labels):
        return Response(encode(labels), media_type="application/octet-stream")


def serve_litserve(path, port, threads):
    server = litserve.LitServer(Segment(path, threads), accelerator="cpu", workers_per_device=1, healthcheck_path="/healthz")
    server.run(host="127.0.0.1", port=port, log_level="warning", generate_client_file=False)


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("server", choices=["fastapi", "litserve"])
    parse.add_argument("model")
    parse.add_argument("--port", type=int, required=True)
    parse.add_argument("--threads", type=int, default=2)
    args = parse.parse_args()
    {"fastapi": serve_fastapi, "litserve": serve_litserve}[args.server](args.model, args.port, args.threads)


if __name__ == "__main__":
    main()
