/** One captured request: its figures, prompt and answer, sent again beside the first time, or opened in the playground. */

import { useEffect, useRef, useState } from "preact/hooks";

import type { Capture } from "../../api/types.ts";
import { count, moment, span } from "../../format/units.ts";
import { Problem } from "../../parts/Problem.tsx";
import { StateMark } from "../../parts/StateMark.tsx";
import { useAnswer } from "../../parts/useAnswer.ts";
import { link, open } from "../../shell/router.ts";
import { put } from "../../state/conversationStore.ts";
import { conversationOf } from "./bodies.ts";
import { refusal, replay } from "./replay.ts";
import type { Replayed } from "./replay.ts";
import { readable, TextBody } from "./TextBody.tsx";

/** The screen of one request. */
export function Request({ id }: { id: string }) {
  const { found: capture, error } = useAnswer<Capture>(`api/v1/requests/${encodeURIComponent(id)}`);
  const [again, setAgain] = useState<Replayed | null>(null);
  const [refused, setRefused] = useState<{ title: string; error: unknown } | null>(null);
  const [sending, setSending] = useState<AbortController | null>(null);
  const stop = useRef<AbortController | null>(null);
  useEffect(() => () => stop.current?.abort(), [id]);
  if (error && !capture) return <><p><a href={link("requests")}>All requests</a></p><Problem title="The request could not be read" error={error} /></>;
  if (!capture) return <p class="quiet" aria-busy="true">Loading…</p>;
  const why = refusal(capture);

  const sendAgain = async () => {
    const ending = (stop.current = new AbortController());
    setSending(ending);
    setRefused(null);
    try {
      setAgain(await replay(capture, ending.signal));
    } catch (failure) {
      if (!ending.signal.aborted) setRefused({ title: "The request could not be sent again", error: failure });
    } finally {
      setSending(null);
    }
  };
  const openInPlayground = () => {
    try {
      const conversation = conversationOf(capture.body!, capture.model);
      put(conversation);
      open("playground", conversation.id);
    } catch (failure) {
      setRefused({ title: "The request could not be opened in the playground", error: failure });
    }
  };
  return (
    <div class="screen">
      <header><h1>Request {capture.id}</h1><p><a href={link("requests")}>All requests</a></p></header>
      <section class="panel" aria-label="Facts">
        <header>
          <h2>{capture.dialect} <StateMark state={capture.result} /></h2>
          {sending
            ? <button class="button" onClick={() => sending.abort()}>Stop</button>
            : <button class="button main" disabled={why !== ""} onClick={() => void sendAgain()}>Send again</button>}
          <button class="button" disabled={why !== ""} onClick={openInPlayground}>Open in the playground</button>
        </header>
        {why && <p class="notice">It cannot be sent again: {why}.</p>}
        {capture.masked && <p class="notice">Secrets in the addresses of its body are masked, and it is sent again without them.</p>}
        {refused && <Problem {...refused} />}
        <div class={again ? "sides two" : "sides"}>
          <Facts title={again ? "Captured" : ""} capture={capture} />
          {again?.capture && <Facts title="Sent again" capture={again.capture} />}
          {again && !again.capture && <p class="details">The server answered in {span(again.seconds)} and kept no capture of it.</p>}
        </div>
      </section>
      <div class={again ? "sides two" : "sides"}>
        <TextBody title="Answer" content={capture.answer} file={`request-${id}-answer.txt`}>See <code>observability.captures.bodies</code>.</TextBody>
        {again && <TextBody title="Answer when sent again" content={again.capture?.answer ?? again.raw} file={`request-${id}-again.txt`} />}
      </div>
      {capture.calls.length > 0 && <TextBody title="Calls of tools" content={calls(capture)} file={`request-${id}-calls.txt`} />}
      <TextBody title="Prompt, as the template rendered it" content={capture.prompt} file={`request-${id}-prompt.txt`}>See <code>observability.captures.bodies</code>.</TextBody>
      <TextBody title="Body of the request" content={capture.body == null ? capture.body : readable(capture.body)} file={`request-${id}.json`}>{why}.</TextBody>
    </div>
  );
}

/** Return the calls of tools as text: each with its arguments and its result. */
function calls(capture: Capture): string | null {
  if (!capture.kept) return null;
  return capture.calls
    .map((call) => `${call.server}/${call.name} ${JSON.stringify(call.arguments)}, ${span(call.seconds)}${call.is_error ? ", failed" : ""}\n${call.text}`)
    .join("\n\n");
}

function Facts({ title, capture }: { title: string; capture: Capture }) {
  const { usage, timings } = capture;
  const computed = Math.max(0, usage.prompt_tokens - usage.cached_tokens);
  const speed = (tokens: number, seconds: number) => (seconds > 0 && tokens > 0 ? `, ${count(Math.round(tokens / seconds))} tokens/s` : "");
  return (
    <div class="details">
      {title && <h3>{title}</h3>}
      <dl class="facts">
        <dt>Result</dt><dd><StateMark state={capture.result} /> {capture.error ? `${capture.error.kind}: ${capture.error.message}` : capture.finish.length > 0 && <span class="quiet">ended by {capture.finish.join(", ")}</span>}</dd>
        <dt>Model</dt><dd><a href={link("models", capture.model)}>{capture.model}</a>{capture.route !== capture.model && `, asked for as ${capture.route}`}, <a href={link("history", String(capture.generation))}>revision {capture.generation}</a></dd>
        {capture.turn > 0 && <><dt>Turn</dt><dd>{capture.turn + 1} of its answer, after calls of tools</dd></>}
        {capture.calls.length > 0 && <><dt>Calls</dt><dd>{capture.calls.map((call) => `${call.server}/${call.name}${call.is_error ? " (failed)" : ""}`).join(", ")}</dd></>}
        <dt>Arrived</dt><dd>{moment(capture.when)}{capture.key && ` with the key ${capture.key}`}, <code>{capture.request}</code></dd>
        {capture.path && <><dt>Path</dt><dd><code>{capture.path}</code></dd></>}
        <dt>Prompt</dt><dd>{count(usage.prompt_tokens)} tokens: {count(usage.cached_tokens)} cached, {count(computed)} computed in {span(timings.prompt)}{speed(computed, timings.prompt)}</dd>
        <dt>Answer</dt><dd>{count(usage.completion_tokens)} tokens in {span(timings.decode)}{speed(usage.completion_tokens, timings.decode)}{usage.reasoning_tokens > 0 && `, ${count(usage.reasoning_tokens)} of them reasoning`}</dd>
        <dt>Drafted</dt><dd>{usage.draft_tokens > 0 ? `${count(usage.draft_tokens)} tokens, ${count(usage.draft_accepted)} accepted` : "–"}</dd>
        <dt>Time</dt><dd>{span(capture.seconds)}, first token after {capture.first_token === null ? "–" : span(capture.first_token)}, {span(timings.load)} of loading</dd>
      </dl>
    </div>
  );
}
