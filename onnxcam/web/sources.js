// Where photographs come from: files, the clipboard, drag and drop, the camera.

const $ = (id) => document.getElementById(id);
const imageIn = (list) => [...(list ?? [])].find((file) => file.type.startsWith("image/"));

/** Call `take(file)` for every photograph that the user gives. */
export function listen(take) {
  const given = ({ target }) => {
    if (target.files[0]) take(target.files[0]);
    target.value = ""; // so that the same file may be chosen again
  };
  $("file").addEventListener("change", given);
  $("capture").addEventListener("change", given);
  $("open").addEventListener("click", () => $("file").click());
  $("shoot").addEventListener("click", () => shoot(take));

  document.addEventListener("paste", ({ clipboardData }) => {
    const file = imageIn(clipboardData?.files);
    if (file) take(file);
  });
  const over = (on) => $("choose").classList.toggle("over", on);
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    over(true);
  });
  document.addEventListener("dragleave", (event) => event.relatedTarget === null && over(false));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    over(false);
    const file = event.dataTransfer.files[0];
    if (file) take(file);
  });
}

/** Phones have a camera of their own behind a file input; elsewhere the page shows one. */
async function shoot(take) {
  const phone = matchMedia("(pointer: coarse)").matches;
  if (phone || !navigator.mediaDevices?.getUserMedia) return $("capture").click();
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" } });
  } catch {
    return $("capture").click(); // no camera, or not allowed
  }
  const [dialog, video] = [$("camera"), $("video")];
  video.srcObject = stream;
  $("cancel").onclick = () => dialog.close();
  $("shutter").onclick = () => {
    if (!video.videoWidth) return; // the camera has not begun
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
    canvas.getContext("2d").drawImage(video, 0, 0);
    canvas.toBlob((blob) => take(blob), "image/png");
    dialog.close();
  };
  dialog.onclose = () => stream.getTracks().forEach((track) => track.stop());
  dialog.showModal();
}
