#!/usr/bin/env python3
"""Asks a running server as others' clients do: python3 scripts/serve/clients.py URL IMAGE [PART...]

    python3 -m venv venv && venv/bin/pip install numpy pillow tritonclient[http]==2.73.0 schemathesis==4.32.5 \\
        openapi-spec-validator==0.9.0 pycocotools==2.0.11 label-studio-sdk==2.1.2 cvat-sdk==2.80.0
    venv/bin/python scripts/serve/clients.py http://127.0.0.1:8080 photo.jpg

The parts are curl, triton, labelstudio, cvat, sagemaker and schemathesis; all of them without any. TOKEN and ADMIN_TOKEN in the environment are
sent where they are set. EXAMPLES is the number of requests that schemathesis makes of each route (50). All labels are compared with
`/v1/segment?output=npy`. Ends with 1 if anything differs from what it should be.
"""

import base64
import importlib.util
import io
import json
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from PIL import Image

failures = []
TOKEN, ADMIN = os.environ.get("TOKEN"), os.environ.get("ADMIN_TOKEN")
HEADERS = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}


def check(name, holds, found=""):
    print(("ok    " if holds else "FAILED") + f" {name}" + (f": {found}" if found != "" and not holds else ""))
    if not holds:
        failures.append(name)


def ask(url, body=None, method=None, **headers):
    """(status, headers, bytes) of an answer, whatever its status."""
    headers = {**HEADERS, **{name.replace("_", "-"): value for name, value in headers.items()}}
    request = urllib.request.Request(url, data=body, headers=headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def post_json(url, value):
    status, _, body = ask(url, json.dumps(value).encode(), Content_Type="application/json")
    return status, json.loads(body)


def labels_of(url, image):
    status, _, body = ask(f"{url}/v1/segment?output=npy", image, Content_Type="application/octet-stream")
    assert status == 200, body
    return np.load(io.BytesIO(body))


def is_fault(body):
    fault = json.loads(body)
    return set(fault) == {"code", "cause", "hint"} and fault["cause"]


def curl(url, path, labels):
    token = ["-H", f"Authorization: Bearer {TOKEN}"] if TOKEN else []

    def run(*arguments):
        """(status, headers, bytes)"""
        with tempfile.TemporaryDirectory() as folder:
            body, head = Path(folder, "body"), Path(folder, "head")
            code = subprocess.run(
                ["curl", "-sS", *token, "-o", body, "-D", head, "-w", "%{http_code}", *arguments], capture_output=True, text=True, check=True
            ).stdout
            return int(code), head.read_text().lower(), body.read_bytes() if body.exists() else b""

    expected = {
        "/": "text/html", "/app.js": "text/javascript", "/style.css": "text/css", "/icon.svg": "image/svg+xml", "/v1/models": "application/json",
        "/openapi.json": "application/json", "/metrics": "application/openmetrics-text", "/healthz": "text/plain", "/readyz": "application/json", "/v2": "application/json",
        "/v2/health/live": "application/json", "/v2/health/ready": "application/json", "/ping": "application/json", "/labelstudio/health": "application/json",
    }
    for route, kind in expected.items():
        status, head, _ = run(url + route)
        check(f"GET {route}", status == 200 and f"content-type: {kind}" in head and "x-request-id:" in head, (status, head))
    status, _, body = run(url + "/v1/models")
    name = json.loads(body)["models"][0]["name"]
    check("GET /v1/models/{m}", run(f"{url}/v1/models/{name}")[0] == 200)

    image = ["-F", f"image=@{path}"]
    status, head, mask = run(*image, f"{url}/v1/segment?output=mask")
    check("a mask", status == 200 and (np.asarray(Image.open(io.BytesIO(mask))) == labels).all())
    check("its times", "server-timing: queue;dur=" in head, head)
    check("the raw body gives the same bytes", run("--data-binary", f"@{path}", f"{url}/v1/segment?output=mask")[2] == mask)
    check("chunked, too", run("-H", "Transfer-Encoding: chunked", "--data-binary", f"@{path}", f"{url}/v1/segment?output=mask")[2] == mask)
    check("and by Accept", run(*image, "-H", "Accept: image/png", f"{url}/v1/segment")[2] == mask)
    status, _, overlay = run(*image, f"{url}/v1/segment?output=overlay")
    check("an overlay", Image.open(io.BytesIO(overlay)).size == labels.shape[::-1])
    stats = json.loads(run(*image, f"{url}/v1/segment")[2])
    check("statistics", sum(one["pixels"] for one in stats["classes"]) + stats.get("ignored", 0) == labels.size, stats)
    outlines = json.loads(run(*image, f"{url}/v1/segment?output=geojson&tolerance=0")[2])
    area = {one["properties"]["class_id"]: 0 for one in outlines["features"]}
    for one in outlines["features"]:
        area[one["properties"]["class_id"]] += one["properties"]["area"]
    check("outlines", area == {int(id): int(count) for id, count in zip(*np.unique(labels[labels != 255], return_counts=True))}, area)
    from pycocotools import mask as coco

    run_lengths = json.loads(run(*image, f"{url}/v1/segment?output=rle")[2])
    drawn = np.full(labels.shape, 255, np.uint8)
    for one in run_lengths["annotations"]:
        drawn[coco.decode(one["segmentation"]).astype(bool)] = one["category_id"] - 1
    check("run lengths, as pycocotools decodes them", (drawn == labels).all())

    refused = {
        "no such route": (404, [url + "/nothing"]),
        "no such model": (404, [*image, f"{url}/v1/segment?model=nobody"]),
        "no such output": (400, [*image, f"{url}/v1/segment?output=poem"]),
        "not by GET": (405, [f"{url}/v1/segment"]),
        "no image": (422, ["--data-binary", "hello", f"{url}/v1/segment"]),
        "an empty body": (400, ["-X", "POST", f"{url}/v1/segment"]),
        "what nobody makes": (406, [*image, "-H", "Accept: video/mp4", f"{url}/v1/segment"]),
        "loading without a token": (403, ["-X", "POST", f"{url}/v2/repository/models/{name}/load"]),
    }
    for what, (code, arguments) in refused.items():
        status, head, body = run(*arguments)
        allowed = {400: (400, 415, 422), 422: (400, 415, 422), 403: (401, 403)}.get(code, (code,))
        check(f"{what}: {status}", status in allowed and is_fault(body), (status, body[:200]))


def triton(url, path, labels):
    from tritonclient import http
    from tritonclient.utils import InferenceServerException

    # The client writes into the headers that it is given: each call has its own.
    client = http.InferenceServerClient(url.split("://", 1)[1], connection_timeout=600, network_timeout=600)
    check("live and ready", client.is_server_live() and client.is_server_ready())
    name = json.loads(ask(f"{url}/v1/models")[2])["models"][0]["name"]
    check("the model is ready", client.is_model_ready(name, headers={**HEADERS}))
    check("the server's metadata", "binary_tensor_data" in client.get_server_metadata(headers={**HEADERS})["extensions"])
    described = client.get_model_metadata(name, headers={**HEADERS})
    check("the model's metadata", {one["name"] for one in described["outputs"]} == {"labels", "confidence"}, described)
    index = client.get_model_repository_index(headers={**HEADERS})
    check("the index of models", any(one["name"] == name and one["state"] == "READY" for one in index), index)

    file = np.array([path.read_bytes()], dtype=np.object_)
    pixels = np.asarray(Image.open(path).convert("RGB"))
    texts = np.array([base64.b64encode(path.read_bytes())], dtype=np.object_)
    for kind, tensor, binary in [
        ("BYTES", file, True), ("BYTES", texts, False), ("UINT8", pixels, True), ("UINT8", pixels[None], True), ("UINT8", pixels[None], False),
    ]:
        given = http.InferInput("image", list(tensor.shape), kind)
        given.set_data_from_numpy(tensor, binary_data=binary)
        for back in (True, False):
            wanted = [http.InferRequestedOutput("labels", binary_data=back), http.InferRequestedOutput("confidence", binary_data=back)]
            answer = client.infer(name, [given], outputs=wanted, request_id="7", headers={**HEADERS})
            got, sure = answer.as_numpy("labels"), answer.as_numpy("confidence")
            form = f"{kind} {list(tensor.shape)} {'binary' if binary else 'JSON'} to {'binary' if back else 'JSON'}"
            # Pixels of a JPEG depend on its decoder: the labels of pixels are compared where the file is lossless.
            same = got.shape == (1, *labels.shape) and ((got[0] == labels).all() or kind == "UINT8" and path.suffix != ".png" and (got[0] == labels).mean() > 0.99)
            check(f"{form}: labels", same, got.shape)
            check(f"{form}: confidence", sure.shape == got.shape and 0 <= sure.min() and sure.max() <= 1 and answer.get_response()["id"] == "7")
    given = http.InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(file)
    check("no outputs named", (client.infer(name, [given], headers={**HEADERS}).as_numpy("labels")[0] == labels).all())
    waiting = [client.async_infer(name, [given], headers={**HEADERS}) for _ in range(2)]
    check("asynchronously", all((one.get_result().as_numpy("labels")[0] == labels).all() for one in waiting))
    given.set_data_from_numpy(np.array([b"hello"], dtype=np.object_))
    try:
        client.infer(name, [given], headers={**HEADERS})
        check("no image is refused", False)
    except InferenceServerException as error:
        check("no image is refused", bool(error.message()) and str(error.status()).startswith("4"), error)
    try:
        client.unload_model(name, headers={**HEADERS})
        check("unloading without the administrator's token is refused", False)
    except InferenceServerException as error:
        check("unloading without the administrator's token is refused", error.status() in ("401", "403"), error)
    if ADMIN:
        admin = {"Authorization": f"Bearer {ADMIN}"}
        client.load_model(name, headers=admin)
        check("a model is loaded again", client.is_model_ready(name, headers={**HEADERS}))
        client.unload_model(name, headers=admin)
        check("and unloaded", not client.is_model_ready(name, headers={**HEADERS}))
        client.load_model(name, headers=admin)
        check("and is there again", (client.infer(name, [given_image(http, file)], headers={**HEADERS}).as_numpy("labels")[0] == labels).all())


def given_image(http, file):
    given = http.InferInput("image", [1], "BYTES")
    given.set_data_from_numpy(file)
    return given


def labelstudio(url, path, labels):
    """What `label_studio/ml/api_connector.py` sends. The image comes within its link, as the server knows no Label Studio here."""
    from label_studio_sdk.converter.brush import decode_rle

    status, _, body = ask(f"{url}/labelstudio/health")
    check("health", status == 200 and json.loads(body)["status"] == "UP", body)
    classes = json.loads(ask(f"{url}/v1/models")[2])["models"][0]["classes"]
    names = {one["name"]: one["id"] for one in classes}
    config = "".join(f'<Label value="{name}"/>' for name in names)
    config = f'<View><Image name="img" value="$photo"/><BrushLabels name="tag" toName="img">{config}</BrushLabels></View>'
    setup = {"project": "1.1700000000", "schema": config, "hostname": "http://localhost:8081", "access_token": "abc", "extra_params": None}
    status, answer = post_json(f"{url}/labelstudio/setup", setup)
    check("setup", status == 200 and answer["model_version"], answer)
    status, again = post_json(f"{url}/labelstudio/setup", setup)
    check("the version stays", again == answer)

    kind = "png" if path.suffix == ".png" else "jpeg"
    link = f"data:image/{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"
    task = {
        "id": 5, "data": {"photo": link}, "meta": {}, "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-01T00:00:00Z", "is_labeled": False,
        "overlap": 1, "inner_id": 1, "total_annotations": 0, "cancelled_annotations": 0, "total_predictions": 0, "comment_count": 0, "project": 1,
        "annotations": [], "predictions": [],
    }
    question = {"tasks": [task], "model_version": answer["model_version"], "project": "1.1700000000", "label_config": config, "params": {"login": None, "password": None, "context": None}}
    status, answer = post_json(f"{url}/labelstudio/predict", question)
    check("predict", status == 200 and len(answer["results"]) == 1, str(answer)[:200])
    found = answer["results"][0]
    check("score and version", 0 <= found["score"] <= 1 and isinstance(found["model_version"], str))
    height, width = labels.shape
    drawn = np.full(labels.shape, 255, np.uint8)
    for region in found["result"]:
        right = region["type"] == "brushlabels" and (region["from_name"], region["to_name"]) == ("tag", "img") and region["value"]["format"] == "rle"
        if not right or (region["original_width"], region["original_height"]) != (width, height):
            check("a region's form", False, {name: value for name, value in region.items() if name != "value"})
        strokes = np.reshape(decode_rle(region["value"]["rle"]), (height, width, 4))[:, :, 3] > 0
        drawn[strokes] = names[region["value"]["brushlabels"][0]]
    check("brush strokes, as label-studio-sdk decodes them", (drawn == labels).all(), (drawn != labels).sum())
    question["tasks"][0]["data"]["photo"] = "http://169.254.169.254/latest/meta-data"
    status, refused = post_json(f"{url}/labelstudio/predict", question)
    check(f"links to elsewhere are refused: {status}", status in (400, 403) and "cause" in refused, refused)


def cvat(url, path, labels):
    import cvat_sdk.auto_annotation as cvataa

    spec = importlib.util.spec_from_file_location("cvat_function", Path(__file__).with_name("cvat.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    os.environ["MIN_PIXELS"] = "1"
    function = module.create(url)
    check("classes become labels", isinstance(function.spec, cvataa.DetectionFunctionSpec) and len(function.spec.labels) > 0)

    class Context(cvataa.DetectionFunctionContext):
        frame_name, conf_threshold, conv_mask_to_poly = path.name, None, False

    image = Image.open(path)
    drawn = np.full(labels.shape, 255, np.uint8)
    for shape in function.detect(Context(), image):
        # CVAT's form: lengths of runs of 0 and 1 in turn within a box, whose corners (inclusive) come last.
        *runs, left, top, right, bottom = (int(value) for value in shape.points)
        box = np.repeat(np.arange(len(runs)) % 2, runs).reshape(bottom - top + 1, right - left + 1)
        part = drawn[top : bottom + 1, left : right + 1]
        part[box == 1] = shape.label_id
    file = io.BytesIO()
    image.convert("RGB").save(file, "PNG")
    check("masks", (drawn == labels_of(url, file.getvalue())).all())
    Context.conv_mask_to_poly = True
    polygons = function.detect(Context(), image)
    check("polygons", polygons and all(one.type.value == "polygon" and len(one.points) >= 6 for one in polygons))


def sagemaker(url, path, labels):
    check("ping", ask(f"{url}/ping")[0] == 200)
    status, head, body = ask(f"{url}/invocations", path.read_bytes(), Content_Type="image/jpeg", Accept="application/x-npy")
    check("invocations by Accept", status == 200 and (np.load(io.BytesIO(body)) == labels).all(), (status, body[:200]))
    status, _, body = ask(f"{url}/invocations", path.read_bytes(), Content_Type="image/jpeg", X_Amzn_SageMaker_Custom_Attributes="output=mask")
    check("invocations by attributes", status == 200 and (np.asarray(Image.open(io.BytesIO(body))) == labels).all(), (status, body[:200]))


def schemathesis(url, path, labels):
    from openapi_spec_validator import validate

    validate(json.loads(ask(f"{url}/openapi.json")[2]))
    check("the document is valid OpenAPI", True)
    tool = Path(sys.executable).with_name("schemathesis")
    header = ["--header", f"Authorization: Bearer {TOKEN}"] if TOKEN else []
    # No schema can say which bytes are an image, so what fits it may be refused.
    options = ["--max-examples", os.environ.get("EXAMPLES", "50"), "--seed", "1", "--request-timeout", "60", "--exclude-checks", "positive_data_acceptance"]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [tool, "run", f"{url}/openapi.json", *options, *header],
            cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )
    print(done.stdout[-6000:])
    check("schemathesis finds nothing", done.returncode == 0)
    check("and the server lives", ask(f"{url}/readyz")[0] == 200)


PARTS = {part.__name__: part for part in (curl, triton, labelstudio, cvat, sagemaker, schemathesis)}


def main(url, path, *parts):
    url, path = url.rstrip("/"), Path(path)
    labels = labels_of(url, path.read_bytes())
    for name in parts or PARTS:
        print(f"-- {name}")
        PARTS[name](url, path, labels)
    print(f"{len(failures)} failed")
    sys.exit(bool(failures))


if __name__ == "__main__":
    if len(sys.argv) < 3 or any(part not in PARTS for part in sys.argv[3:]):
        sys.exit(__doc__)
    main(*sys.argv[1:])
