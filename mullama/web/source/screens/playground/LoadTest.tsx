/** A load test: a number of clients that this page plays, with their speed and errors. */

import { useEffect, useRef, useState } from "preact/hooks";

import { visible } from "../../format/text.ts";
import { count, counted, span } from "../../format/units.ts";
import { Empty } from "../../parts/Empty.tsx";
import { StateMark } from "../../parts/StateMark.tsx";
import { link } from "../../shell/router.ts";
import { MOST_CLIENTS, percentile, run } from "./loadRun.ts";
import type { Client, Plan } from "./loadRun.ts";

/** The table is drawn at most this often, in milliseconds, so that the page does not slow its own clients. */
const EVERY = 250;
const MARKS: Record<Client["state"], string> = { waiting: "connecting", answering: "starting", done: "ok", failed: "failed", stopped: "cancelled" };

/** The form, the sums and one row a client. */
export function LoadTest({ models, first }: { models: string[]; first: string }) {
  const [plan, setPlan] = useState<Plan>({ model: first, clients: 4, answers: 3, prompt: "Write a short story about the sea.", tokens: 64, different: true });
  const [clients, setClients] = useState<Client[]>([]);
  const [times, setTimes] = useState<[number, number]>([0, 0]);
  const [stop, setStop] = useState<AbortController | null>(null);
  const known = useRef<Client[]>([]);

  const start = async () => {
    const ending = new AbortController();
    const begun = performance.now();
    known.current = [];
    const draw = () => { setClients([...known.current]); setTimes([begun, performance.now()]); };
    const timer = setInterval(draw, EVERY);
    setStop(ending);
    try {
      await run(plan, (client) => { known.current[client.number - 1] = client; }, ending.signal);
    } finally {
      clearInterval(timer);
      draw();
      setStop(null);
    }
  };
  useEffect(() => () => stop?.abort(), [stop]);
  useEffect(() => {
    const escape = (event: KeyboardEvent) => { if (event.key === "Escape") stop?.abort(); };
    window.addEventListener("keydown", escape);
    return () => window.removeEventListener("keydown", escape);
  }, [stop]);
  const number = (name: "clients" | "answers" | "tokens", title: string, most: number) => (
    <label class="field"><span>{title}</span>
      <input class="input" type="number" min={1} max={most} required value={plan[name]} onInput={(event) => setPlan({ ...plan, [name]: event.currentTarget.valueAsNumber })} />
    </label>
  );
  return (
    <div class="screen">
      <header><h1>Load test</h1><p><a href={link("playground")}>Back to the conversations</a></p></header>
      <section class="panel">
        <form class="inside" onSubmit={(event) => { event.preventDefault(); void start(); }}>
          <p class="notice">The test uses the server: requests of other clients wait during it, and its answers count for the usage and the limits of your key.</p>
          <div class="load-fields">
            <label class="field"><span>Model</span>
              <select class="input" value={plan.model} onChange={(event) => setPlan({ ...plan, model: event.currentTarget.value })}>
                {models.map((name) => <option key={name}>{name}</option>)}
              </select>
            </label>
            {number("clients", `Clients, at most ${MOST_CLIENTS}`, MOST_CLIENTS)}
            {number("answers", "Answers of each", 1000)}
            {number("tokens", "Tokens of an answer, at most", 100_000)}
          </div>
          <label class="field"><span>Prompt</span>
            <textarea class="input" rows={3} required value={plan.prompt} onInput={(event) => setPlan({ ...plan, prompt: event.currentTarget.value })} />
          </label>
          <label><input type="checkbox" checked={plan.different} onChange={(event) => setPlan({ ...plan, different: event.currentTarget.checked })} /> Different beginnings, so that no prompt is in the cache</label>
          <p class="actions">
            {/* The keys keep them apart: an element that changes its type during a click would submit the form. */}
            {stop
              ? <button key="stop" type="button" class="button danger" onClick={() => stop.abort()}>Stop</button>
              : <button key="start" class="button main">Start {counted(plan.clients || 0, "client")}</button>}
            <span class="quiet small"><kbd>Esc</kbd> stops</span>
          </p>
        </form>
      </section>
      {clients.length ? <Result clients={clients.filter(Boolean)} seconds={(times[1] - times[0]) / 1000} running={stop !== null} /> : (
        <section class="panel"><Empty title="No test yet">Start one to see tokens per second and times to the first token.</Empty></section>
      )}
    </div>
  );
}

function Result({ clients, seconds, running }: { clients: Client[]; seconds: number; running: boolean }) {
  const sum = (value: (client: Client) => number) => clients.reduce((total, client) => total + value(client), 0);
  const firsts = clients.flatMap((client) => client.firsts);
  const tokens = sum((client) => client.tokens + client.pieces);
  const milliseconds = (share: number) => { const value = percentile(firsts, share); return value === null ? "–" : span(value / 1000); };
  return (
    <section class="panel" aria-label="Result">
      <dl class="sums">
        <div><dt>Tokens/s</dt><dd>{seconds > 0 ? (tokens / seconds).toFixed(1) : "–"}</dd></div>
        <div><dt>First token, p50</dt><dd>{milliseconds(0.5)}</dd></div>
        <div><dt>First token, p95</dt><dd>{milliseconds(0.95)}</dd></div>
        <div><dt>Answers</dt><dd>{count(sum((client) => client.answers))}</dd></div>
        <div><dt>Tokens</dt><dd>{count(tokens)}</dd></div>
        <div><dt>Errors</dt><dd>{count(sum((client) => client.errors))}</dd></div>
        <div><dt>Time</dt><dd>{span(seconds)}</dd></div>
      </dl>
      <div class="scroll">
        <table aria-busy={running}>
          <thead><tr>
            <th scope="col">Client</th><th scope="col">State</th><th scope="col" class="number">Answers</th><th scope="col" class="number">Tokens</th>
            <th scope="col" class="number">Tokens/s</th><th scope="col" class="number">First token</th><th scope="col">Last error</th>
          </tr></thead>
          <tbody>
            {clients.map((client) => (
              <tr key={client.number}>
                <td>{client.number}</td>
                <td><StateMark state={MARKS[client.state]} word={client.state} /></td>
                <td class="number">{count(client.answers)}</td>
                <td class="number">{count(client.tokens + client.pieces)}</td>
                <td class="number">{client.generating > 0 ? (client.tokens / (client.generating / 1000)).toFixed(1) : "–"}</td>
                <td class="number">{client.firsts.length ? span(client.firsts.at(-1)! / 1000) : "–"}</td>
                <td>{client.errors > 0 ? `${client.errors}: ${visible(client.problem)}` : "–"}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
    </section>
  );
}
