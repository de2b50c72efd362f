// The worker, as seen from the page: each call is answered by a promise.

export class Engine {
  #worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" });
  #waiting = new Map();
  #count = 0;

  constructor() {
    this.#worker.onmessage = ({ data: { id, result, error, progress } }) => {
      const waiting = this.#waiting.get(id);
      if (progress) return waiting.said?.(progress);
      this.#waiting.delete(id);
      return error === undefined ? waiting.resolve(result) : waiting.reject(new Error(error));
    };
    this.#worker.onerror = (event) => {
      const error = new Error(event.message || "The worker could not be started.");
      for (const { reject } of this.#waiting.values()) reject(error);
      this.#waiting.clear();
    };
  }

  #ask(task, argument, transfer = [], said = undefined) {
    const id = this.#count++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject, said });
      this.#worker.postMessage({ id, task, argument }, transfer);
    });
  }

  /** Load runtime and model; `said({have, total})` is told how many bytes have come. */
  open(page, said) {
    return this.#ask("open", page, [], said);
  }

  /** Prepare a photograph, an ImageBitmap that is handed over. */
  photograph(bitmap) {
    return this.#ask("photograph", bitmap, [bitmap]);
  }

  /** Take a ready tensor, {numbers, width, height}, in place of a photograph. */
  ready(tensor) {
    return this.#ask("ready", tensor);
  }

  /** Run the model on what was prepared; -1 explains the predicted class. */
  run(target) {
    return this.#ask("run", target);
  }
}
