/** Work that is done at most so often, however often it becomes due. */

/** The clock and the timer of the browser; a test has its own. */
export interface Time {
  now(): number;
  after(milliseconds: number, act: () => void): void;
}

const BROWSER: Time = {
  now: () => performance.now(),
  after: (milliseconds, act) => void setTimeout(act, milliseconds),
};

/** Return a function that runs `act` at once, or at the end of `every` milliseconds since its last run. */
export function paced(act: () => void, every: number, time: Time = BROWSER): () => void {
  let last = -Infinity;
  let due = false;
  const run = () => {
    due = false;
    last = time.now();
    act();
  };
  return () => {
    if (due) return;
    const left = last + every - time.now();
    if (left <= 0) return run();
    due = true;
    time.after(left, run);
  };
}
