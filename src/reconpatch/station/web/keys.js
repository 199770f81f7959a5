// The keyboard. A single key is a command; several in a burst are text, as a scan gun types it; and
// commands of single characters can be switched off (WCAG 2.1.4).

const BURST = 200; // milliseconds between the first two keys of a scan gun, at most; a command waits as long
const GOES_ON = 500; // the same once it is a burst, as a machine that is at work may deliver keys late
const BY_HAND = 60; // milliseconds that nobody's Enter comes sooner after what they typed into a field
const SHORTEST = 3; // characters; a shorter burst is two commands pressed at once, and runs neither
const OFF = "shortcuts";

export const shortcuts = {
  get on() { return localStorage.getItem(OFF) !== "off"; },
  set on(value) {
    localStorage.setItem(OFF, value ? "on" : "off");
    document.body.classList.toggle("no-shortcuts", !value);
  },
};

/**
 * Listen to the keyboard.
 *
 * command(key) is asked when a key goes down, and gives what the key does, or nothing; so whatever
 * the command is about is what was on the screen then, although it runs a moment later.
 * scanned(text) is given a burst that no text field took.
 */
export function listenForKeys({ command, scanned }) {
  let text = ""; // of the burst so far
  let last = -Infinity; // when its last key went down
  let typed = false; // whether a text field has it
  let act = null; // what its first key does if no other follows
  let timer = 0;

  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing || event.defaultPrevented) return;
    const inText = Boolean(event.target.closest("input:not([type=range]):not([type=checkbox]), textarea"));
    const gap = event.timeStamp - last;
    const inBurst = gap < (text.length > 1 ? GOES_ON : BURST);
    if (event.key.length === 1) character(event, inText, inBurst);
    else if (event.key === "Enter" && text.length >= SHORTEST && (inText ? gap < BY_HAND : inBurst)) {
      event.preventDefault(); // the end of what a gun typed, not a press of the button in focus
      finish();
    } else if (!inText && !event.target.closest("select, dialog[open]")) {
      const does = command(event);
      if (does) { event.preventDefault(); does(); }
    }
  });

  function character(event, inText, inBurst) {
    if (event.repeat) { if (!inText) event.preventDefault(); return; } // a key that is held down is one press
    const free = !inText && !event.target.closest("dialog[open]");
    if (!inBurst) { text = ""; act = null; typed = false; }
    text += event.key;
    typed = typed || inText;
    last = event.timeStamp;
    clearTimeout(timer);
    timer = setTimeout(finish, inBurst ? GOES_ON : BURST);
    if (inBurst) {
      act = null;
      if (!inText) event.preventDefault(); // Space would press a button
    } else if (free && event.target.closest("select")) {
      if (event.key !== " ") event.preventDefault(); // a gun's letters would choose from the list
    } else if (free && shortcuts.on) {
      act = command(event);
      if (act) event.preventDefault();
    }
  }

  function finish() {
    clearTimeout(timer);
    const [does, burst] = [act, !typed && text.length >= SHORTEST ? text.trim() : ""];
    text = "";
    act = null;
    last = -Infinity;
    if (does) does();
    else if (burst) scanned(burst);
  }
}
