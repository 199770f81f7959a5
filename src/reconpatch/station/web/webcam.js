// The webcam: browsers give it to pages of this machine or over https only.

import { during, h, toast } from "./dom.js";

/** A button and a panel; `inspect` is given each frame as a PNG file. */
export function webcamPanel(inspect) {
  const video = h("video", { muted: true, playsinline: true, "aria-label": "Webcam" });
  const take = h("button", { type: "button", onclick: capture }, "Inspect this frame ", h("kbd", {}, "Space"));
  const note = h("p", { class: "note", role: "status", hidden: true });
  const element = h("div", { class: "webcam" }, note, video, take);
  const button = h("button", { type: "button", "aria-pressed": "false", onclick: toggle }, "Webcam ", h("kbd", {}, "C"));
  let stream = null;
  draw();

  function draw() {
    video.hidden = take.hidden = !stream;
    button.setAttribute("aria-pressed", String(Boolean(stream)));
  }

  function tell(text) {
    note.textContent = text;
    note.hidden = !text;
  }

  async function start() {
    if (!navigator.mediaDevices || !navigator.mediaDevices.getUserMedia) {
      tell("The webcam is not available: browsers allow it on https or on this machine (http://127.0.0.1) only. Start the service with --tls-cert and --tls-key.");
      return;
    }
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1920 } }, audio: false });
    } catch (error) {
      const reasons = {
        NotFoundError: "this machine has none",
        NotAllowedError: "the browser was not allowed to use it",
        NotReadableError: "another program uses it",
      };
      tell(`The webcam is not available: ${reasons[error.name] || error.message}.`);
      return;
    }
    tell("");
    video.srcObject = stream;
    await video.play().catch(() => {});
    draw();
  }

  function stop() {
    if (stream) for (const track of stream.getTracks()) track.stop();
    stream = null;
    video.srcObject = null;
    draw();
  }

  function toggle() {
    if (stream) stop();
    else start();
  }

  function capture() {
    if (!stream || !video.videoWidth) return;
    during(take, async () => {
      const canvas = h("canvas", { width: video.videoWidth, height: video.videoHeight });
      canvas.getContext("2d").drawImage(video, 0, 0);
      const blob = await new Promise((done) => canvas.toBlob(done, "image/png"));
      if (!blob) { toast("The frame could not be read.", { kind: "error" }); return; }
      const stamp = new Date().toISOString().slice(0, 19).replaceAll(":", "");
      await inspect(new File([blob], `webcam-${stamp}.png`, { type: "image/png" }));
    });
  }

  return { element, button, toggle, capture, stop };
}
