/** Numbers as people read them, with units as in the commands of the terminal: bytes in powers of 1024. */

const STEPS = ["B", "KiB", "MiB", "GiB", "TiB"];

/** Return a number of bytes with three digits at most, such as `17.9 MiB`. */
export function bytes(count: number): string {
  let step = 0;
  let value = count;
  while (value >= 1000 && step < STEPS.length - 1) {
    value /= 1024;
    step += 1;
  }
  const digits = step === 0 || value >= 100 ? 0 : 1;
  return `${value.toFixed(digits)} ${STEPS[step]}`;
}

/** Return a time span, such as `320 ms`, `4.2 s`, `3 min 5 s` or `2 d 4 h`. */
export function span(seconds: number): string {
  if (seconds < 0.9995) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 60) return `${seconds.toFixed(1)} s`;
  const whole = Math.round(seconds);
  if (whole < 3600) return joined(Math.floor(whole / 60), "min", whole % 60, "s");
  if (whole < 86400) return joined(Math.floor(whole / 3600), "h", Math.floor((whole % 3600) / 60), "min");
  return joined(Math.floor(whole / 86400), "d", Math.floor((whole % 86400) / 3600), "h");
}

function joined(large: number, unit: string, small: number, part: string): string {
  return small ? `${large} ${unit} ${small} ${part}` : `${large} ${unit}`;
}

/** Made once: a formatter takes long to make, and counts are drawn for each token. */
const COUNTS = new Intl.NumberFormat("en");

/** Return a count with a separator for thousands. */
export function count(value: number): string {
  return COUNTS.format(value);
}

/** Return a number and its noun, such as `1 model` or `3 models`. */
export function counted(value: number, noun: string): string {
  return `${count(value)} ${noun}${value === 1 ? "" : "s"}`;
}

/** Return a moment as a time of the day, with the date if that is another day. */
export function moment(unixSeconds: number, now = Date.now()): string {
  const when = new Date(unixSeconds * 1000);
  const time = when.toLocaleTimeString("en-GB");
  return when.toDateString() === new Date(now).toDateString() ? time : `${day(when)} ${time}`;
}

/** Return the date in the time zone of the reader, which is that of the time beside it. */
function day(when: Date): string {
  const part = (number: number) => String(number).padStart(2, "0");
  return `${when.getFullYear()}-${part(when.getMonth() + 1)}-${part(when.getDate())}`;
}

/** Return the first digits of a digest, without its algorithm. */
export function digest(text: string): string {
  return text.replace(/^sha256:/, "").slice(0, 12);
}
