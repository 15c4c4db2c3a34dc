/** The captured requests: live, filtered, and one opened with its prompt and answer. */

import { useEffect, useState } from "preact/hooks";

import { ask } from "../../api/client.ts";
import { serverEvents } from "../../api/streams.ts";
import type { Capture, CaptureRow } from "../../api/types.ts";
import { count, moment, span } from "../../format/units.ts";
import { Empty } from "../../parts/Empty.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { StateMark } from "../../parts/StateMark.tsx";
import { link, parts } from "../../shell/router.ts";

const KEPT = 1000;

/** The screen: the list, or one request of it. */
export function Requests() {
  const id = parts.value[1];
  return id ? <Request id={id} /> : <List />;
}

function List() {
  const [rows, setRows] = useState<CaptureRow[]>([]);
  const [error, setError] = useState<unknown>(null);
  const [filter, setFilter] = useState("");
  useEffect(() => {
    const stop = new AbortController();
    void (async () => {
      try {
        for await (const data of serverEvents("api/v1/requests/events", { signal: stop.signal })) {
          const row = JSON.parse(data) as CaptureRow;
          setRows((before) => [row, ...before].slice(0, KEPT));
        }
      } catch (failure) {
        if (!stop.signal.aborted) setError(failure);
      }
    })();
    return () => stop.abort();
  }, []);
  const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
  const shown = rows.filter((row) => words.every((word) => text(row).includes(word)));
  return (
    <div class="screen">
      <header><h1>Requests</h1></header>
      {error != null && <Problem title="The requests could not be read" error={error} />}
      <section class="panel">
        <header>
          <label class="field grow"><span>Filter by model, key, route, dialect or result</span>
            <input class="input" type="search" value={filter} onInput={(event) => setFilter(event.currentTarget.value)} />
          </label>
          <span class="quiet">{shown.length} of {rows.length}</span>
        </header>
        {shown.length ? <Table rows={shown} /> : (
          <Empty title={rows.length ? "No request matches" : "No request is captured"}>
            {!rows.length && <>Declare <code>observability.captures</code> in the manifest to see requests here.</>}
          </Empty>
        )}
      </section>
    </div>
  );
}

function text(row: CaptureRow): string {
  return [row.model, row.key ?? "", row.route, row.dialect, row.result].join(" ").toLowerCase();
}

function Table({ rows }: { rows: CaptureRow[] }) {
  return (
    <div class="scroll">
      <table>
        <thead>
          <tr>
            <th scope="col">When</th><th scope="col">Result</th><th scope="col">Model</th><th scope="col">Key</th>
            <th scope="col" class="number">Prompt</th><th scope="col" class="number">Cached</th><th scope="col" class="number">Answer</th>
            <th scope="col" class="number">First token</th><th scope="col" class="number">Total</th>
          </tr>
        </thead>
        <tbody>
          {rows.map((row) => (
            <tr key={row.id}>
              <td class="nowrap"><a href={link("requests", String(row.id))}>{moment(row.when)}</a></td>
              <td><StateMark state={row.result} />{row.error && <span class="small block">{row.error.message}</span>}</td>
              <td><a href={link("models", row.model)}>{row.model}</a>{row.route !== row.model && <span class="quiet small block">{row.route}</span>} <span class="quiet small">{row.dialect}</span></td>
              <td>{row.key ?? "–"}</td>
              <td class="number">{count(row.usage.prompt_tokens)}</td>
              <td class="number">{count(row.usage.cached_tokens)}</td>
              <td class="number">{count(row.usage.completion_tokens)}</td>
              <td class="number">{row.first_token === null ? "–" : span(row.first_token)}</td>
              <td class="number">{span(row.seconds)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Request({ id }: { id: string }) {
  const [capture, setCapture] = useState<Capture | null>(null);
  const [error, setError] = useState<unknown>(null);
  useEffect(() => {
    ask<Capture>(`api/v1/requests/${encodeURIComponent(id)}`).then(setCapture, setError);
  }, [id]);
  if (error) return <Problem title="The request could not be read" error={error} />;
  if (!capture) return <p class="quiet">Loading…</p>;
  const { usage, timings } = capture;
  return (
    <div class="screen">
      <header><h1>Request {capture.id}</h1><p><a href={link("requests")}>All requests</a></p></header>
      <section class="panel">
        <dl class="facts details">
          <dt>Result</dt><dd><StateMark state={capture.result} /> {capture.error && `${capture.error.kind}: ${capture.error.message}`}</dd>
          <dt>Model</dt><dd><a href={link("models", capture.model)}>{capture.model}</a> <span class="quiet">by {capture.dialect}{capture.route !== capture.model && `, asked for ${capture.route}`}</span></dd>
          <dt>Arrived</dt><dd>{moment(capture.when)}{capture.key && ` from ${capture.key}`}, <code>{capture.request}</code></dd>
          <dt>Prompt</dt><dd>{count(usage.prompt_tokens)} tokens, {count(usage.cached_tokens)} of them cached, {span(timings.prompt)}</dd>
          <dt>Answer</dt><dd>{count(usage.completion_tokens)} tokens, {count(usage.reasoning_tokens)} of them reasoning, {span(timings.decode)}{usage.draft_tokens > 0 && `, ${count(usage.draft_accepted)} of ${count(usage.draft_tokens)} guesses accepted`}</dd>
          <dt>Time</dt><dd>{span(capture.seconds)}, first token after {capture.first_token === null ? "–" : span(capture.first_token)}, {span(timings.load)} of loading</dd>
        </dl>
      </section>
      <Body title="Prompt, as the template rendered it" content={capture.prompt} />
      <Body title="Answer" content={capture.answer} />
    </div>
  );
}

function Body({ title, content }: { title: string; content: string | null | undefined }) {
  return (
    <section class="panel">
      <header><h2>{title}</h2></header>
      {content == null ? <Empty title="Not kept">See <code>observability.captures.bodies</code>.</Empty> : <pre class="body" tabIndex={0}>{content}</pre>}
    </section>
  );
}
