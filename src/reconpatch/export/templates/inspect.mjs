// Inspects one photo with the exported graph. Node, onnxruntime-node, nothing else.
//
//   npm install onnxruntime-node
//   node inspect.mjs model.onnx sample/photo.ppm THRESHOLD        an 8-bit RGB photo, prepared here
//   node inspect.mjs model.onnx sample/prepared.f32 THRESHOLD     the prepared input as raw float32
//
// A fourth argument is `resize` of model.json where that is not null. README.md tells each step.

import { readFileSync } from "node:fs";
import * as ort from "onnxruntime-node";

const UNIT = 2 ** 22; // weights are whole numbers of 2^-22

// For each output pixel along an axis: the first input pixel it is made of, and their weights.
function filter(length, start, end, outLength) {
  [start, end] = [Math.fround(start), Math.fround(end)];
  const scale = Math.fround(end - start) / outLength;
  const reach = Math.max(scale, 1); // half the width of the triangle
  return Array.from({ length: outLength }, (_, i) => {
    const centre = start + (i + 0.5) * scale;
    const first = Math.max(Math.trunc(centre - reach + 0.5), 0);
    const last = Math.min(Math.trunc(centre + reach + 0.5), length);
    const weights = [];
    for (let x = first; x < last; x++)
      weights.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) / reach)));
    const sum = weights.reduce((a, b) => a + b, 0);
    return { first, weights: weights.map((w) => Math.floor((w / sum) * UNIT + 0.5)) };
  });
}

const rounded = (sum) => Math.min(Math.max(Math.floor((sum + UNIT / 2) / UNIT), 0), 255);

// Across first, then down, with a rounding to 8 bits after each: that order is part of the result.
function resize(photo, height, width, [x0, y0, x1, y1]) {
  const across = filter(photo.width, x0, x1, width);
  const narrow = new Uint8Array(photo.height * width * 3);
  for (let y = 0; y < photo.height; y++)
    across.forEach(({ first, weights }, x) => {
      for (let c = 0; c < 3; c++) {
        let sum = 0;
        weights.forEach((w, k) => (sum += w * photo.pixels[3 * (y * photo.width + first + k) + c]));
        narrow[3 * (y * width + x) + c] = rounded(sum);
      }
    });
  const out = new Uint8Array(height * width * 3);
  filter(photo.height, y0, y1, height).forEach(({ first, weights }, y) => {
    for (let i = 0; i < 3 * width; i++) {
      let sum = 0;
      weights.forEach((w, k) => (sum += w * narrow[3 * (first + k) * width + i]));
      out[3 * y * width + i] = rounded(sum);
    }
  });
  return out;
}

// The whole photo, or the middle of it where the shorter side is resized to `side` first.
function sourceBox(photo, height, width, side) {
  if (!side) return [0, 0, photo.width, photo.height];
  const short = Math.min(photo.height, photo.width);
  const h = Math.floor((side * photo.height) / short);
  const w = Math.floor((side * photo.width) / short);
  const even = (x) => (x % 1 === 0.5 ? 2 * Math.round(x / 2) : Math.round(x)); // halves to even
  const [top, left] = [even((h - height) / 2), even((w - width) / 2)];
  return [
    (left * photo.width) / w,
    (top * photo.height) / h,
    ((left + width) * photo.width) / w,
    ((top + height) * photo.height) / h,
  ];
}

// (3, height, width) in 0 to 1: planes of red, green and blue.
function prepare(photo, height, width, side) {
  const small = resize(photo, height, width, sourceBox(photo, height, width, side));
  const plane = height * width;
  return Float32Array.from({ length: 3 * plane }, (_, i) =>
    Math.fround(small[3 * (i % plane) + Math.floor(i / plane)] / 255),
  );
}

function readPpm(bytes) {
  // "P6 width height 255", one blank, then the pixels
  const header = /^P6\s+(\d+)\s+(\d+)\s+255\s/.exec(bytes.toString("latin1", 0, 64));
  if (!header) throw new Error("the photo is not a PPM file of 8 bits");
  const [width, height] = [Number(header[1]), Number(header[2])];
  return { width, height, pixels: bytes.subarray(header[0].length) };
}

const [modelFile, inputFile, threshold, side = "0"] = process.argv.slice(2);
if (threshold === undefined) {
  console.error("usage: inspect.mjs MODEL.onnx PHOTO.ppm|PREPARED.f32 THRESHOLD [RESIZE]");
  process.exit(2);
}
const session = await ort.InferenceSession.create(modelFile, { logSeverityLevel: 3 });
const bytes = readFileSync(inputFile);
const { shape } = session.inputMetadata.find((input) => input.name === "photos");
const [height, width] = shape.slice(2).map(Number);
const input = inputFile.endsWith(".ppm")
  ? prepare(readPpm(bytes), height, width, Number(side))
  : new Float32Array(new Uint8Array(bytes).buffer); // little-endian, as every PC is
const photos = new ort.Tensor("float32", input, [1, 3, height, width]);
const found = await session.run({ photos }, ["score", "map"]);

const [score] = found.score.data;
const map = found.map.data;
let peak = 0;
for (let i = 1; i < map.length; i++) if (map[i] > map[peak]) peak = i;
console.log(`score ${score}`);
console.log(`map ${map[peak]} at x ${peak % width} y ${Math.floor(peak / width)}`);
console.log(score > Number(threshold) ? "anomalous" : "good");
