// A heatmap on the photograph: where it lies, how warm each pixel is, in which colour.

/** Which pixels of a photograph of `length` see a map of `elements`; see Placement.axis. */
export function axis(placement, elements, length = placement.photo) {
  const shown = length / placement.photo; // the photograph may be shown smaller than it is
  const scale = placement.scale / shown;
  let first = -1;
  let last = 0;
  for (let x = 0; x < length; x++) {
    const centre = (x + 0.5) * scale + placement.offset;
    if (centre >= 0 && centre <= placement.input) {
      if (first < 0) first = x;
      last = x + 1;
    }
  }
  if (first < 0) {
    const middle = Math.trunc((placement.input / 2 - placement.offset) / scale);
    first = Math.min(Math.max(middle, 0), length - 1);
    last = first + 1;
  }
  const per = elements / placement.input;
  return { length, scale: scale * per, offset: placement.offset * per, first, last };
}

function samples(line, elements) {
  return Array.from({ length: line.last - line.first }, (_, i) => {
    const at = (line.first + i + 0.5) * line.scale + line.offset - 0.5;
    const u = Math.min(Math.max(at, 0), elements - 1);
    const low = Math.max(0, Math.min(Math.trunc(u), elements - 2));
    const high = Math.min(low + 1, elements - 1);
    return [low, high, high > low ? u - low : 0];
  });
}

/**
 * Resize a map bilinearly onto a photograph, divided by its maximum there; 0 where nothing was seen.
 *
 * @param map {data, width, height}
 * @param placed rows and columns, as geometry() gives them
 * @returns {data: Float32Array, width, height, rows, columns}
 */
export function onPhotograph(map, placed, width, height) {
  const rows = axis(placed.rows, map.height, height);
  const columns = axis(placed.columns, map.width, width);
  const data = new Float32Array(width * height);
  const across = samples(columns, map.width);
  let peak = 0;
  samples(rows, map.height).forEach(([y0, y1, wy], j) => {
    const upper = y0 * map.width;
    const lower = y1 * map.width;
    let at = (rows.first + j) * width + columns.first;
    for (const [x0, x1, wx] of across) {
      const left = map.data[upper + x0] * (1 - wy) + map.data[lower + x0] * wy;
      const right = map.data[upper + x1] * (1 - wy) + map.data[lower + x1] * wy;
      const value = left * (1 - wx) + right * wx;
      peak = Math.max(peak, value);
      data[at++] = value;
    }
  });
  if (peak > 0) for (let i = 0; i < data.length; i++) data[i] = Math.min(1, data[i] / peak);
  return { data, width, height, rows, columns, peak };
}

/** Colours of the heat; cold places are clear, from half of the peak on they cover. */
export function coloured(heat, colours) {
  const image = new ImageData(heat.width, heat.height);
  for (let i = 0; i < heat.data.length; i++) {
    const level = Math.round(heat.data[i] * 255);
    image.data[i * 4] = colours[level * 3];
    image.data[i * 4 + 1] = colours[level * 3 + 1];
    image.data[i * 4 + 2] = colours[level * 3 + 2];
    image.data[i * 4 + 3] = Math.min(255, 2 * level);
  }
  return image;
}

/** Say in words where the heat is: the third of the picture that its hottest pixel lies in. */
export function whereabouts(heat) {
  if (!(heat.peak > 0)) return "nowhere";
  const at = heat.data.indexOf(1);
  const third = (x, n) => Math.min(2, Math.floor((3 * x) / n));
  const row = ["upper", "middle", "lower"][third(Math.floor(at / heat.width), heat.height)];
  const column = ["left", "centre", "right"][third(at % heat.width, heat.width)];
  return row === "middle" && column === "centre" ? "in the centre" : `${row} ${column}`;
}
