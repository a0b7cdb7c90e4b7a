// Where photos come from: dropped, pasted, chosen, or taken by a camera.

const $ = (id) => document.getElementById(id);

/** Calls `take(blob, name, left)` for every photo; `left` is how many others came with it. `fail({cause, hint})` says why none did. */
export function listen(take, fail) {
  const chosen = (files) => {
    const [first, ...others] = [...files].filter((file) => !file.type || file.type.startsWith("image/"));
    if (first) take(first, first.name || "photo", others.length);
    else if (files.length) fail({ cause: "this file is not an image", hint: "choose a JPEG, PNG, WebP, TIFF, BMP or GIF" });
  };

  for (const input of [$("file"), $("snap")]) {
    input.addEventListener("change", () => {
      chosen(input.files);
      input.value = "";
    });
  }
  for (const button of document.querySelectorAll("[data-choose]")) button.addEventListener("click", () => $("file").click());
  for (const button of document.querySelectorAll("[data-camera]")) button.addEventListener("click", () => camera(take, fail));

  addEventListener("paste", (event) => {
    if (event.target instanceof HTMLInputElement && event.target.type !== "range" && event.target.type !== "radio") return;
    const files = event.clipboardData?.files ?? [];
    if (files.length) chosen(files);
    else fail({ cause: "the clipboard holds no picture", hint: "copy the picture itself, not its address" });
  });
  drop(chosen, fail);
}

function drop(chosen, fail) {
  let depth = 0;
  const show = (change) => {
    depth = Math.max(0, change ? depth + change : 0);
    $("drop").hidden = depth === 0;
  };
  addEventListener("dragenter", (event) => {
    event.preventDefault();
    show(1);
  });
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("dragleave", () => show(-1));
  addEventListener("drop", (event) => {
    event.preventDefault();
    show(0);
    if (event.dataTransfer.files.length) chosen(event.dataTransfer.files);
    else fail({ cause: "what was dropped is not a file", hint: "save the picture first, or copy and paste it" });
  });
}

/** A live picture in a dialog; where the browser has none for this page, its own way to take a photo. */
async function camera(take, fail) {
  if (!navigator.mediaDevices?.getUserMedia) return $("snap").click();
  const dialog = $("camera"), video = dialog.querySelector("video"), status = dialog.querySelector("[role=status]"), shoot = $("shoot");
  let stream = null;
  const end = () => {
    stream?.getTracks().forEach((track) => track.stop());
    video.srcObject = null;
    shoot.disabled = true;
  };
  dialog.addEventListener("close", end, { once: true });
  $("camera-close").onclick = () => dialog.close();
  status.textContent = "Waiting for the camera…";
  dialog.showModal();
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
  } catch (error) {
    dialog.close();
    const denied = error.name === "NotAllowedError";
    return fail({ cause: denied ? "the browser did not allow the camera" : "no camera was found", hint: denied ? "allow it in the browser's settings for this page" : "choose a photo instead" });
  }
  if (!dialog.open) return end();
  video.srcObject = stream;
  await video.play();
  status.textContent = "";
  shoot.disabled = false;
  shoot.onclick = () => {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => {
      dialog.close();
      take(blob, "camera.jpg", 0);
    }, "image/jpeg", 0.95);
  };
}
