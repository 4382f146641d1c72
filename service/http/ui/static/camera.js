// The camera: one frame after another, each sent as soon as the one before it was answered.

import { ImageFile } from "./images.js";

const LONGEST = 1280;

export const hasCamera = () => Boolean(navigator.mediaDevices?.getUserMedia); // only on https and localhost

export class Camera {
  #stream = null;

  get on() {
    return this.#stream !== null;
  }

  /** Run until `stop`: `frame` gets each image and is waited for. Throws an Error in words where there is none. */
  async start(frame) {
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({
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
    this.#stream = stream;
    const video = document.createElement("video");
    video.muted = true;
    video.playsInline = true;
    video.srcObject = stream;
    await video.play();
    const canvas = document.createElement("canvas");
    while (this.#stream === stream) {
      const scale = Math.min(1, LONGEST / Math.max(video.videoWidth, video.videoHeight));
      canvas.width = Math.round(video.videoWidth * scale);
      canvas.height = Math.round(video.videoHeight * scale);
      canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
      const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.9));
      if (this.#stream !== stream) break; // it was stopped meanwhile
      await frame(new ImageFile("camera.jpg", blob));
      await new Promise(requestAnimationFrame);
    }
  }

  stop() {
    this.#stream?.getTracks().forEach((track) => track.stop());
    this.#stream = null;
  }
}
