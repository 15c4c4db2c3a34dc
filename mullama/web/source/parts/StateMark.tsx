/** A state as a shape, a word and a colour, so that no one of them is needed to read it. */


type Tone = "good" | "busy" | "idle" | "warn" | "bad";

const TONES: Record<string, Tone> = {
  ready: "good",
  live: "good",
  ok: "good",
  applied: "good",
  changed: "good",
  idle: "idle",
  cancelled: "idle",
  loading: "busy",
  running: "busy",
  starting: "busy",
  reconciling: "busy",
  connecting: "busy",
  degraded: "warn",
  failing: "warn",
  paused: "warn",
  interrupted: "warn",
  absent: "warn",
  stopping: "warn",
  lost: "bad",
  failed: "bad",
  ejected: "bad",
  error: "bad",
  "no answer": "bad",
};
const SHAPES: Record<Tone, string> = { good: "●", busy: "◐", idle: "○", warn: "▲", bad: "■" };
const WORDS: Record<string, string> = { lost: "connection lost", connecting: "connecting" };

/** Show the state of a model, of the server or of a request. word: in place of the state's own. */
export function StateMark({ state, word }: { state: string; word?: string }) {
  const tone = TONES[state] ?? "idle";
  return (
    <span class={`mark ${tone}`}>
      <span aria-hidden="true">{SHAPES[tone]}</span> {word ?? WORDS[state] ?? state}
    </span>
  );
}
