// From a photograph's pixels to the input tensor: what onnxcam/imaging/preprocess.py does with
// Pillow, number by number, so that the page and Python see the same image.

const PRECISION = 22; // bits of Pillow's fixed-point weights for 8-bit images (Resample.c)
const VAST = 16; // times the input's size

const cubic = (x, a = -0.5) =>
  x < 1 ? ((a + 2) * x - (a + 3)) * x * x + 1 : x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
const sinc = (x) => (x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI));
const FILTERS = {
  box: [0.5, (x) => (x > -0.5 && x <= 0.5 ? 1 : 0)],
  bilinear: [1, (x) => Math.max(0, 1 - Math.abs(x))],
  bicubic: [2, (x) => cubic(Math.abs(x))],
  lanczos: [3, (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0)],
};

/** Round halves to even, as Python does. */
export function round(x) {
  const low = Math.floor(x);
  if (x - low !== 0.5) return Math.round(x);
  return low % 2 === 0 ? low : low + 1;
}

/** Weights of one axis: for each output pixel the first input pixel and the weights from there. */
function weights(length, from, to, out, filter) {
  const [reach, kernel] = FILTERS[filter];
  const scale = (to - from) / out;
  const stretch = Math.max(scale, 1);
  const support = reach * stretch;
  return Array.from({ length: out }, (_, i) => {
    const centre = from + (i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(length, Math.trunc(centre + support + 0.5));
    const row = new Float64Array(last - first);
    let total = 0;
    for (let x = 0; x < row.length; x++) {
      row[x] = kernel((x + first - centre + 0.5) / stretch);
      total += row[x];
    }
    const fixed = Int32Array.from(row, (w) => {
      const value = (total === 0 ? w : w / total) * 2 ** PRECISION;
      return Math.trunc(value + (value < 0 ? -0.5 : 0.5));
    });
    return { first, fixed };
  });
}

const clip = (sum) => Math.min(255, Math.max(0, sum >> PRECISION));

/** Resize along one axis; `step` is the distance of neighbours on it, `other` that of lines. */
function along(pixels, out, count, lines, step, other, outStep, outOther) {
  for (let line = 0; line < lines; line++) {
    for (let i = 0; i < count.length; i++) {
      const { first, fixed } = count[i];
      let r = 1 << (PRECISION - 1);
      let g = r;
      let b = r;
      let at = line * other + first * step;
      for (let x = 0; x < fixed.length; x++, at += step) {
        const w = fixed[x];
        r += pixels[at] * w;
        g += pixels[at + 1] * w;
        b += pixels[at + 2] * w;
      }
      const to = line * outOther + i * outStep;
      out[to] = clip(r);
      out[to + 1] = clip(g);
      out[to + 2] = clip(b);
    }
  }
}

function nearest(image, width, height, box) {
  const { data, channels } = image;
  const out = new Uint8Array(width * height * 3);
  const places = (length, from, to, count) => {
    const step = (to - from) / count;
    let at = from + step * 0.5;
    return Array.from({ length: count }, () => {
      const place = Math.min(length - 1, Math.max(0, Math.trunc(at)));
      at += step;
      return place;
    });
  };
  const columns = places(image.width, box[0], box[2], width);
  places(image.height, box[1], box[3], height).forEach((row, y) => {
    columns.forEach((column, x) => {
      const from = (row * image.width + column) * channels;
      for (let c = 0; c < 3; c++) out[(y * width + x) * 3 + c] = data[from + c];
    });
  });
  return { data: out, width, height, channels: 3 };
}

/**
 * Resize as Pillow does: antialiased, columns first, each pass rounded to 8 bits. (Since Pillow 13
 * it is rows first for some sizes, which changes the last digit.)
 *
 * @param image {data, width, height, channels}: rows of pixels, 3 or 4 numbers each; 3 are read.
 * @param box left, top, right, bottom of the part that is resized, the whole by default.
 */
export function resize(image, width, height, filter, box) {
  box ??= [0, 0, image.width, image.height];
  if (filter === "nearest") return nearest(image, width, height, box);
  const rows = weights(image.height, box[1], box[3], height, filter);
  const top = rows[0].first; // rows that nothing reads are left out
  const end = rows.at(-1).first + rows.at(-1).fixed.length;
  const columns = weights(image.width, box[0], box[2], width, filter);
  const middle = new Uint8Array(width * (end - top) * 3);
  const part = image.data.subarray(top * image.width * image.channels);
  const line = image.width * image.channels;
  along(part, middle, columns, end - top, image.channels, line, 3, width * 3);
  const out = new Uint8Array(width * height * 3);
  const moved = rows.map(({ first, fixed }) => ({ first: first - top, fixed }));
  along(middle, out, moved, width, width * 3, 3, width * 3, 3);
  return { data: out, width, height, channels: 3 };
}

/** Sizes before cropping or padding, and where the photograph then lies; see Preprocess._fit. */
export function geometry(settings, photoWidth, photoHeight) {
  const [height, width] = settings.size;
  let newHeight;
  let newWidth;
  if (settings.resize === "squash") {
    const grown = (settings.shorter || Math.min(width, height)) / Math.min(width, height);
    newHeight = round(height * grown);
    newWidth = round(width * grown);
  } else if (settings.resize === "letterbox") {
    const fractions = [[height, photoHeight], [width, photoWidth]];
    const [over, under] = fractions.reduce((a, b) => (b[0] / b[1] < a[0] / a[1] ? b : a));
    newHeight = Math.min(height, Math.max(1, round((photoHeight * over) / under)));
    newWidth = Math.min(width, Math.max(1, round((photoWidth * over) / under)));
  } else {
    const least = [settings.shorter || Math.min(width, height), Math.min(photoHeight, photoWidth)];
    const fractions = [least, [height, photoHeight], [width, photoWidth]];
    const [over, under] = fractions.reduce((a, b) => (b[0] / b[1] > a[0] / a[1] ? b : a));
    newHeight = Math.max(height, Math.floor((photoHeight * over) / under));
    newWidth = Math.max(width, Math.floor((photoWidth * over) / under));
  }
  const top = round((height - newHeight) / 2);
  const left = round((width - newWidth) / 2);
  return {
    newWidth,
    newHeight,
    rows: { photo: photoHeight, input: height, scale: newHeight / photoHeight, offset: top },
    columns: { photo: photoWidth, input: width, scale: newWidth / photoWidth, offset: left },
  };
}

/** A ready tensor is its own picture. */
export function identity(width, height) {
  const whole = (n) => ({ photo: n, input: n, scale: 1, offset: 0 });
  return { rows: whole(height), columns: whole(width) };
}

/** The photograph in the input's size, {data, width, height, channels: 3}. */
export function fit(image, settings, placed) {
  const [height, width] = settings.size;
  const { newWidth, newHeight, rows, columns } = placed;
  const filter = settings.interpolation;
  if (newHeight * newWidth > VAST * height * width) {
    const box = [
      -columns.offset / columns.scale,
      -rows.offset / rows.scale,
      (width - columns.offset) / columns.scale,
      (height - rows.offset) / rows.scale,
    ];
    return resize(image, width, height, filter, box);
  }
  const same = newWidth === image.width && newHeight === image.height;
  const resized = same ? image : resize(image, newWidth, newHeight, filter);
  const pad = settings.pad.length === 3 ? settings.pad : Array(3).fill(settings.pad[0]);
  const out = new Uint8Array(width * height * 3);
  for (let y = 0; y < height; y++) {
    const row = y - rows.offset;
    for (let x = 0; x < width; x++) {
      const column = x - columns.offset;
      const inside = row >= 0 && row < newHeight && column >= 0 && column < newWidth;
      const from = (row * newWidth + column) * resized.channels;
      for (let c = 0; c < 3; c++) {
        out[(y * width + x) * 3 + c] = inside ? resized.data[from + c] : pad[c];
      }
    }
  }
  return { data: out, width, height, channels: 3 };
}

const LIMITS = { uint8: [0, 255], int8: [-128, 127], uint16: [0, 65535], int16: [-32768, 32767] };

/** One array of numbers, `(pixel / divide - mean) / std`, in the model's layout. */
export function normalise(image, settings, layout, dtype) {
  const colours = { RGB: [0, 1, 2], BGR: [2, 1, 0], grey: [0] }[settings.color];
  const channels = colours.length;
  const each = (list) => Array.from({ length: channels }, (_, c) => list[c] ?? list[0]);
  const f = Math.fround; // Python computes in float32
  const scale = each(settings.std).map((s) => f(1 / f(f(settings.divide) * f(s))));
  const shift = each(settings.mean).map((m, c) => f(f(m) / f(each(settings.std)[c])));
  const places = image.width * image.height;
  const out = new Float32Array(places * channels);
  const last = layout.endsWith("C");
  for (let p = 0; p < places; p++) {
    const at = p * 3;
    for (let c = 0; c < channels; c++) {
      const [r, g, b] = [image.data[at], image.data[at + 1], image.data[at + 2]];
      const pixel =
        settings.color === "grey"
          ? (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16 // Pillow's convert("L")
          : image.data[at + colours[c]];
      let value = f(f(pixel * scale[c]) - shift[c]);
      if (dtype in LIMITS) value = Math.min(LIMITS[dtype][1], Math.max(LIMITS[dtype][0], round(value)));
      out[last ? p * channels + c : c * places + p] = value;
    }
  }
  return out;
}
