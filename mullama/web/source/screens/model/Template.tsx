/** The chat template, rendered with a conversation that can be edited. */

import { useEffect, useState } from "preact/hooks";

import { ask, key } from "../../api/client.ts";
import type { ModelDocument } from "../../api/types.ts";
import { bytes, counted } from "../../format/units.ts";
import { Empty } from "../../parts/Empty.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { returns } from "../../state/live.ts";

interface Turn {
  role: "system" | "user" | "assistant" | "tool";
  content: string;
}

const SAMPLE: Turn[] = [
  { role: "system", content: "You answer briefly." },
  { role: "user", content: "What is the weather in Paris?" },
  { role: "assistant", content: "It is sunny." },
  { role: "user", content: "And tomorrow?" },
];
const TOOL = {
  type: "function",
  function: {
    name: "get_weather",
    description: "Return the weather of a city.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};
const SOURCES: Record<ModelDocument["template"]["source"], string> = {
  manifest: "of the manifest", weights: "in the weights", registry: "of the registry", none: "none",
};
const PAUSE = 300;

/** The panel. ready: the model is in memory. */
export function Template({ document, ready }: { document: ModelDocument; ready: boolean }) {
  const { template, model } = document;
  const [turns, setTurns] = useState(SAMPLE);
  const [tools, setTools] = useState(false);
  const [thinking, setThinking] = useState("");
  const change = (index: number, part: Partial<Turn>) =>
    setTurns((before) => before.map((turn, place) => (place === index ? { ...turn, ...part } : turn)));
  return (
    <section class="panel" aria-labelledby="template-title">
      <header>
        <h2 id="template-title">Template</h2>
        <span class="quiet">{template.source === "none" ? "none" : `${template.syntax === "go" ? "Go" : "Jinja"}, ${SOURCES[template.source]}`}</span>
      </header>
      {template.source === "none" ? <Empty title="This model has no chat template">State one with <code>template</code> in the manifest, or use the model for embeddings and plain completions.</Empty> : (
        <div class="inside">
          <ol class="turns">
            {turns.map((turn, index) => (
              <li key={index}>
                <select class="input" aria-label={`Role of message ${index + 1}`} value={turn.role} onChange={(event) => change(index, { role: event.currentTarget.value as Turn["role"] })}>
                  {["system", "user", "assistant", "tool"].map((role) => <option key={role}>{role}</option>)}
                </select>
                <textarea class="input" rows={1} aria-label={`Text of message ${index + 1}`} value={turn.content} onInput={(event) => change(index, { content: event.currentTarget.value })} />
                <button class="button plain" aria-label={`Remove message ${index + 1}`} disabled={turns.length === 1} onClick={() => setTurns((before) => before.filter((_, place) => place !== index))}>✕</button>
              </li>
            ))}
          </ol>
          <div class="actions">
            <button class="button" onClick={() => setTurns((before) => [...before, { role: before.at(-1)?.role === "user" ? "assistant" : "user", content: "" }])}>Add a message</button>
            <label class="check"><input type="checkbox" checked={tools} onChange={(event) => setTools(event.currentTarget.checked)} /> offer a tool{!template.tools && <span class="quiet"> (the template has no tools)</span>}</label>
            {template.thinking.length > 1 && (
              <label class="check">thinking{" "}
                <select class="input" value={thinking} onChange={(event) => setThinking(event.currentTarget.value)}>
                  <option value="">as declared</option>
                  {template.thinking.map((level) => <option key={String(level)} value={JSON.stringify(level)}>{level === true ? "yes" : level === false ? "no" : level}</option>)}
                </select>
              </label>
            )}
          </div>
          <Rendered model={model.name} request={{ messages: turns, ...(tools ? { tools: [TOOL] } : {}), ...(thinking ? { think: JSON.parse(thinking) as unknown } : {}) }} ready={ready} />
          <details>
            <summary>Text of the template, {bytes(template.text.length)}</summary>
            <pre class="body" tabIndex={0}>{template.text}</pre>
          </details>
        </div>
      )}
    </section>
  );
}

/** The rendered prompt, some moments after the last change. An error keeps the last prompt in view. */
function Rendered({ model, request, ready }: { model: string; request: object; ready: boolean }) {
  const [prompt, setPrompt] = useState("");
  const [tokens, setTokens] = useState<number | null>(null);
  const [error, setError] = useState<unknown>(null);
  // Without a limit of the context there is nothing to count, so a model that is not in memory is not loaded.
  const body = JSON.stringify({ model, ...request, stream: false, truncate: false, _debug_render_only: true });
  useEffect(() => {
    const stop = new AbortController();
    const timer = setTimeout(() => {
      void (async () => {
        try {
          const answer = await ask<{ _debug_info: { rendered_template: string } }>("api/models/chat", { method: "POST", body, signal: stop.signal });
          setPrompt(answer._debug_info.rendered_template); setError(null); setTokens(null);
        } catch (failure) {
          if (!stop.signal.aborted) setError(failure);
        }
      })();
    }, PAUSE);
    return () => { clearTimeout(timer); stop.abort(); };
  }, [body, key.value, returns.value]);
  return (
    <>
      {error != null && <Problem title="The conversation was not rendered" error={error} />}
      <p class="actions">
        <span class="quiet">Prompt, as the model reads it</span>
        {tokens !== null ? <span>{counted(tokens, "token")}</span> : (
          <button class="button plain small" onClick={() => counting(model, prompt).then(setTokens, setError)}>{ready ? "Count the tokens" : "Load the model and count the tokens"}</button>
        )}
      </p>
      <pre class="body" tabIndex={0} role="region" aria-label="Rendered prompt">{prompt || " "}</pre>
    </>
  );
}

/** Count the tokens of a prompt. It loads a model that is not in memory, so it waits for a click. */
async function counting(model: string, content: string): Promise<number> {
  const body = JSON.stringify({ model, content, parse_special: true });
  return (await ask<{ tokens: unknown[] }>("api/models/tokenize", { method: "POST", body })).tokens.length;
}
