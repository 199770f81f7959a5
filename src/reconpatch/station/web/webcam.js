// The webcam: browsers give it to pages of this machine or over https only.

import { during, h, toast } from "./dom.js";
import { t } from "./words.js";

/** A button and a panel; `inspect` is given each frame as a PNG file. */
export function webcamPanel(inspect) {
  const video = h("video", { muted: true, playsinline: true, "aria-label": t("webcam.title") });
  const take = h("button", { type: "button", "data-needs": "inspect", onclick: capture }, t("webcam.take"), " ", h("kbd", {}, t("key.space")));
  const note = h("p", { class: "note", role: "status", hidden: true });
  const element = h("div", { class: "webcam" }, note, video, take);
  const button = h("button", { type: "button", "aria-pressed": "false", onclick: toggle }, t("webcam.title"), " ", h("kbd", {}, "C"));
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
      tell(t("webcam.https"));
      return;
    }
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { width: { ideal: 1920 } }, audio: false });
    } catch (error) {
      const known = ["NotFoundError", "NotAllowedError", "NotReadableError"].includes(error.name);
      tell(t("webcam.not_available", { why: known ? t(`webcam.why.${error.name}`) : error.message }));
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
      if (!blob) { toast(t("webcam.unread"), { kind: "error" }); return; }
      const stamp = new Date().toISOString().slice(0, 19).replaceAll(":", "");
      await inspect(new File([blob], `webcam-${stamp}.png`, { type: "image/png" }));
    });
  }

  return { element, button, toggle, capture, stop };
}
