// The camera: one frame after another, each sent as soon as the one before it was answered.

import { ImageFile } from "./images.js";

const LONGEST = 1280;

export const hasCamera = () => Boolean(navigator.mediaDevices?.getUserMedia); // only on https and localhost

const close = (stream) => stream?.getTracks().forEach((track) => track.stop());

export class Camera {
  #run = null; // {stream}, from `start` to `stop`: a browser may ask its user before there is a stream

  /** @param changed called with whether it is on */
  constructor(changed) {
    this.changed = changed;
  }

  get on() {
    return this.#run !== null;
  }

  /** Run until `stop`: `frame` gets each image and is waited for. Throws an Error in words where there is none. */
  async start(frame) {
    const run = (this.#run = { stream: null });
    this.changed(true);
    try {
      run.stream = await open();
      if (this.#run === run) await this.#show(run, frame);
    } catch (error) {
      if (this.#run === run) throw error; // else nobody waits for it any more
    } finally {
      if (this.#run === run) this.stop();
      else close(run.stream);
    }
  }

  async #show(run, frame) {
    const video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;
    video.srcObject = run.stream;
    await video.play();
    const canvas = document.createElement("canvas");
    while (this.#run === run) {
      const scale = Math.min(1, LONGEST / Math.max(video.videoWidth, video.videoHeight));
      canvas.width = Math.round(video.videoWidth * scale);
      canvas.height = Math.round(video.videoHeight * scale);
      canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
      const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
      if (this.#run !== run) break; // it was stopped meanwhile
      await frame(new ImageFile("camera.jpg", blob));
      await new Promise(requestAnimationFrame);
    }
  }

  stop() {
    close(this.#run?.stream);
    this.#run = null;
    this.changed(false);
  }
}

async function open() {
  try {
    return await navigator.mediaDevices.getUserMedia({
      video: { facingMode: "environment", width: { ideal: LONGEST } },
    });
  } catch (error) {
    const reasons = {
      NotAllowedError: "The camera may not be used: allow it for this page in the browser's address bar.",
      NotFoundError: "No camera was found.",
      NotReadableError: "The camera is in use by another program.",
    };
    throw new Error(reasons[error.name] ?? `The camera cannot be used: ${error.message}`);
  }
}
