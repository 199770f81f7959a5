// A sound and a light for who does not look at the screen: another pattern for each of OK, NG and none,
// so that neither pitch nor colour is needed to tell them apart.

const TONES = { // [pitch in Hz, when it begins, how long it lasts, in seconds] each
  good: [[1320, 0, 0.12]],
  anomalous: [[440, 0, 0.3], [440, 0.45, 0.3]],
  trouble: [[660, 0, 0.15], [440, 0.25, 0.15], [660, 0.5, 0.15], [440, 0.75, 0.15]],
};
let audio = null;

/** Sound the pattern of "good", "anomalous" or "trouble". */
export function beep(kind) {
  audio ??= new AudioContext();
  audio.resume(); // it waits for a first click or key of this page, as browsers have it
  for (const [pitch, begin, length] of TONES[kind]) {
    const tone = new OscillatorNode(audio, { frequency: pitch });
    const loud = new GainNode(audio, { gain: 0.3 });
    tone.connect(loud).connect(audio.destination);
    tone.start(audio.currentTime + begin);
    tone.stop(audio.currentTime + begin + length);
  }
}

/** Light the edge of the screen: once for good, twice for anomalous, dashed and lasting for trouble. */
export function flash(kind) {
  const { body } = document;
  body.classList.remove("flash-good", "flash-anomalous", "flash-trouble");
  void body.offsetWidth; // begins the animation anew
  body.classList.add(`flash-${kind}`);
}
