// Shows a clip frame by frame on a canvas: the frame, the mask over it, and beside it what became of it.

const KEPT_IMAGES = 160;
const AHEAD = 10;
const FINE_WIDTH = 1200;

class Images {
  // Images by address, the least used forgotten first; what is not there (yet) is not kept.
  constructor() {
    this.kept = new Map();
  }

  get(url) {
    let found = this.kept.get(url);
    if (found) {
      this.kept.delete(url);
    } else {
      found = { image: null };
      found.ready = this.load(url).then((image) => {
        if (image === null) this.kept.delete(url);
        found.image = image;
        return image;
      });
    }
    this.kept.set(url, found);
    while (this.kept.size > KEPT_IMAGES) this.kept.delete(this.kept.keys().next().value);
    return found;
  }

  async load(url) {
    try {
      const answer = await fetch(url);
      if (answer.status === 204) return false; // an empty mask
      return answer.ok ? await createImageBitmap(await answer.blob()) : null;
    } catch {
      return null;
    }
  }
}

export class Player {
  constructor(canvas, { onFrame, onPoint, onBox, onSplit, onPlaying }) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.images = new Images();
    this.told = { onFrame, onPoint, onBox, onSplit, onPlaying };
    this.tool = "point";
    this.cross = null;
    this.clear();
    canvas.addEventListener("pointerdown", (event) => this.pressed(event));
    canvas.addEventListener("pointermove", (event) => this.moved(event));
    canvas.addEventListener("pointerup", (event) => this.released(event));
    canvas.addEventListener("pointercancel", () => { this.drag = null; this.draw(); });
    canvas.addEventListener("keydown", (event) => this.key(event));
    canvas.addEventListener("blur", () => { this.cross = null; this.draw(); });
  }

  clear() {
    this.clip = null;
    this.masks = null;
    this.after = null;
    this.marks = [];
    this.frame = 0;
    this.split = 0.5;
    this.drag = null;
    this.isPlaying = false;
    this.drawn = null;
  }

  open(clip) {
    this.pause();
    this.clear();
    this.clip = clip;
    // Small clips get a finer canvas, so that marks and handles stay sharp.
    const finer = Math.max(1, Math.ceil(FINE_WIDTH / clip.result.shown[0]));
    [this.canvas.width, this.canvas.height] = clip.result.shown.map((side) => side * finer);
    this.show(0);
  }

  // What lies over the clip: a follow job, an erase job (or null), and the marks of the person.
  set({ masks, after, marks }) {
    this.masks = masks;
    this.after = after;
    this.marks = marks;
    this.canvas.classList.toggle("comparing", Boolean(after));
    this.draw();
  }

  show(number) {
    if (!this.clip) return;
    this.frame = Math.max(0, Math.min(this.clip.result.frames - 1, number));
    this.told.onFrame(this.frame);
    this.draw();
    for (let ahead = 1; ahead <= (this.isPlaying ? AHEAD : 2); ahead += 1) this.needed(this.frame + ahead);
  }

  needed(number) {
    if (number >= this.clip.result.frames) return [];
    const urls = [`/api/jobs/${this.clip.id}/frames/${number}`];
    if (this.after) urls.push(`/api/jobs/${this.after.id}/frames/${number}`);
    else if (this.masks) urls.push(`/api/jobs/${this.masks.id}/masks/${number}`);
    return urls.map((url) => this.images.get(url));
  }

  play() {
    if (!this.clip || this.isPlaying) return;
    this.isPlaying = true;
    this.told.onPlaying(true);
    if (this.frame >= this.clip.result.frames - 1) this.show(0);
    const each = 1000 / this.clip.result.rate;
    let due = performance.now() + each;
    const step = (now) => {
      if (!this.isPlaying) return;
      if (now >= due) {
        const next = this.frame + 1;
        if (next >= this.clip.result.frames) {
          this.pause();
          return;
        }
        // Masks may be still to come; frames are waited for.
        if (this.needed(next).every((one, at) => one.image !== null || (at === 1 && !this.after))) {
          this.show(next);
          due = Math.max(due + each, now);
        }
      }
      requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  pause() {
    if (this.isPlaying) this.told.onPlaying(false);
    this.isPlaying = false;
  }

  async draw() {
    if (!this.clip) return;
    const [frame, other] = this.needed(this.frame);
    const wanted = (this.drawn = {});
    // What is there already is drawn at once, so that the split and the cross hair follow the hand.
    if (frame.image && (!other || other.image !== null)) return this.paint(frame.image, other && other.image);
    const [picture, second] = await Promise.all([frame.ready, other && other.ready]);
    if (this.drawn === wanted && picture) this.paint(picture, second);
    return undefined;
  }

  paint(picture, second) {
    const { context, canvas } = this;
    const { width, height } = canvas;
    context.drawImage(picture, 0, 0, width, height);
    if (this.after && second) {
      const at = Math.round(this.split * width);
      context.save();
      context.beginPath();
      context.rect(at, 0, width - at, height);
      context.clip();
      context.drawImage(second, 0, 0, width, height);
      context.restore();
      this.paintHandle(at, width, height);
    } else if (second) {
      context.globalAlpha = 0.55;
      context.drawImage(second, 0, 0, width, height);
      context.globalAlpha = 1;
    }
    if (!this.after) for (const mark of this.marks) if (mark.frame === this.frame) this.paintMark(mark, width, height);
    if (this.drag && this.drag.box) this.paintBox(this.drag.box, width, height);
    if (this.cross && document.activeElement === canvas) this.paintCross(width, height);
  }

  unit() {
    // A pixel of the screen in pixels of the canvas.
    return this.canvas.width / Math.max(1, this.canvas.getBoundingClientRect().width);
  }

  paintHandle(at, width, height) {
    const { context } = this;
    const unit = this.unit();
    context.fillStyle = "rgb(255 255 255 / 90%)";
    context.shadowColor = "rgb(0 0 0 / 50%)";
    context.shadowBlur = 6 * unit;
    context.fillRect(at - unit, 0, 2 * unit, height);
    context.beginPath();
    context.arc(at, height / 2, 17 * unit, 0, 2 * Math.PI);
    context.fill();
    context.shadowBlur = 0;
    context.strokeStyle = "#1b1d21";
    context.lineWidth = 2 * unit;
    context.lineCap = "round";
    context.lineJoin = "round";
    for (const side of [-1, 1]) {
      context.beginPath();
      context.moveTo(at + side * 5 * unit, height / 2 - 5 * unit);
      context.lineTo(at + side * 10 * unit, height / 2);
      context.lineTo(at + side * 5 * unit, height / 2 + 5 * unit);
      context.stroke();
    }
    const label = (text, x, align) => {
      context.font = `600 ${13 * unit}px system-ui, sans-serif`;
      context.textAlign = align;
      context.textBaseline = "top";
      context.lineWidth = 3 * unit;
      context.strokeStyle = "rgb(0 0 0 / 55%)";
      context.strokeText(text, x, 12 * unit);
      context.fillStyle = "#fff";
      context.fillText(text, x, 12 * unit);
    };
    if (at > 90 * unit) label("Before", 14 * unit, "left");
    if (width - at > 90 * unit) label("After", width - 14 * unit, "right");
  }

  paintMark(mark, width, height) {
    if (mark.box) {
      this.paintBox(mark.box, width, height);
      return;
    }
    const { context } = this;
    const unit = this.unit();
    context.beginPath();
    context.arc(mark.point[0] * width, mark.point[1] * height, 7 * unit, 0, 2 * Math.PI);
    context.fillStyle = "#ff4081";
    context.fill();
    context.lineWidth = 2.5 * unit;
    context.strokeStyle = "#fff";
    context.stroke();
  }

  paintBox([left, top, right, bottom], width, height) {
    const { context } = this;
    const unit = this.unit();
    for (const [colour, line] of [["rgb(0 0 0 / 60%)", 5], ["#ff80ab", 2.5]]) {
      context.strokeStyle = colour;
      context.lineWidth = line * unit;
      context.strokeRect(left * width, top * height, (right - left) * width, (bottom - top) * height);
    }
  }

  paintCross(width, height) {
    const { context } = this;
    const unit = this.unit();
    const [x, y] = [this.cross[0] * width, this.cross[1] * height];
    for (const [colour, line] of [["rgb(0 0 0 / 70%)", 5], ["#fff", 2]]) {
      context.strokeStyle = colour;
      context.lineWidth = line * unit;
      context.beginPath();
      context.moveTo(x - 16 * unit, y);
      context.lineTo(x + 16 * unit, y);
      context.moveTo(x, y - 16 * unit);
      context.lineTo(x, y + 16 * unit);
      context.stroke();
    }
  }

  place(event) {
    const box = this.canvas.getBoundingClientRect();
    // The picture may be smaller than the element, which keeps its shape (object-fit: contain).
    const scale = Math.min(box.width / this.canvas.width, box.height / this.canvas.height);
    const [width, height] = [this.canvas.width * scale, this.canvas.height * scale];
    const inside = (value) => Math.max(0, Math.min(1, value));
    return [
      inside((event.clientX - box.left - (box.width - width) / 2) / width),
      inside((event.clientY - box.top - (box.height - height) / 2) / height),
    ];
  }

  pressed(event) {
    if (!this.clip || event.button !== 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    this.pause();
    this.cross = null;
    const at = this.place(event);
    this.drag = { from: at, box: null };
    if (this.after) this.told.onSplit(at[0]);
  }

  moved(event) {
    if (!this.drag) return;
    const at = this.place(event);
    if (this.after) {
      this.told.onSplit(at[0]);
    } else if (this.tool === "box") {
      const { from } = this.drag;
      this.drag.box = [Math.min(from[0], at[0]), Math.min(from[1], at[1]), Math.max(from[0], at[0]), Math.max(from[1], at[1])];
      this.draw();
    }
  }

  released(event) {
    const { drag } = this;
    this.drag = null;
    if (!drag || this.after) return;
    if (this.tool === "point") this.told.onPoint(this.frame, this.place(event));
    else if (drag.box && (drag.box[2] - drag.box[0]) * this.canvas.width > 3 && (drag.box[3] - drag.box[1]) * this.canvas.height > 3) this.told.onBox(this.frame, drag.box);
    this.draw();
  }

  key(event) {
    const steps = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (steps && event.shiftKey && !this.after) {
      const [x, y] = this.cross || [0.5, 0.5];
      this.cross = [Math.max(0, Math.min(1, x + 0.02 * steps[0])), Math.max(0, Math.min(1, y + 0.02 * steps[1]))];
      this.draw();
    } else if (steps && steps[0]) {
      this.pause();
      this.show(this.frame + steps[0]);
    } else if (event.key === " ") {
      if (this.isPlaying) this.pause();
      else this.play();
    } else if (event.key === "Enter" && this.cross && !this.after) {
      this.told.onPoint(this.frame, this.cross);
    } else {
      return;
    }
    event.preventDefault();
  }
}
