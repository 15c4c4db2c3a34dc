/** One message: its text, reasoning, media and figures, and its other versions. */

import { useState } from "preact/hooks";

import { count, span } from "../../format/units.ts";
import type { Message } from "../../state/conversations.ts";
import { Medium } from "./Composer.tsx";
import { Markdown } from "./Markdown.tsx";

interface Props {
  message: Message;
  siblings: Message[];
  busy: boolean;
  growing: boolean;
  show: (id: string) => void;
  edit: (text: string) => void;
  again: () => void;
}

/** A message of the shown branch. */
export function MessageView({ message, siblings, busy, growing, show, edit, again }: Props) {
  const [draft, setDraft] = useState<string | null>(null);
  const place = siblings.findIndex((one) => one.id === message.id);
  const mine = message.role === "user";
  return (
    <article class={`message ${message.role}`} aria-busy={growing}>
      <header>
        <strong>{mine ? "You" : (message.model ?? "Model")}</strong>
        {siblings.length > 1 && (
          <span class="versions">
            <button class="button plain small" aria-label="Earlier version" disabled={place === 0 || busy} onClick={() => show(siblings[place - 1]!.id)}>‹</button>
            {place + 1} of {siblings.length}
            <button class="button plain small" aria-label="Later version" disabled={place === siblings.length - 1 || busy} onClick={() => show(siblings[place + 1]!.id)}>›</button>
          </span>
        )}
      </header>
      {message.media.map((medium, index) => <Medium key={index} medium={medium} />)}
      {message.thinking && (
        <details><summary>Reasoning</summary><p class="thinking">{message.thinking}</p></details>
      )}
      {draft !== null ? (
        <form onSubmit={(event) => { event.preventDefault(); setDraft(null); edit(draft); }}>
          <textarea class="input" rows={4} aria-label="Edited message" value={draft} onInput={(event) => setDraft(event.currentTarget.value)} />
          <p class="actions">
            <button class="button main" disabled={busy}>Ask again</button>
            <button class="button" type="button" onClick={() => setDraft(null)}>Cancel</button>
          </p>
        </form>
      ) : mine ? <p class="asked">{message.content}</p> : <Markdown text={message.content} />}
      {growing && !message.content && !message.thinking && <p class="quiet">Waiting for the first token…</p>}
      {message.error && <p class="problem" role="alert">{message.error}</p>}
      {!growing && draft === null && (
        <footer class="quiet small">
          {message.stats && (
            <span>
              {count(message.stats.tokens)} tokens at {message.stats.seconds ? Math.round(message.stats.tokens / message.stats.seconds) : "–"}/s,
              first after {span(message.stats.firstToken)}, prompt of {count(message.stats.promptTokens)}
            </span>
          )}
          {mine
            ? <button class="button plain small" disabled={busy} onClick={() => setDraft(message.content)}>Edit</button>
            : <button class="button plain small" disabled={busy} onClick={again}>Regenerate</button>}
          <button class="button plain small" onClick={() => void navigator.clipboard.writeText(message.content)}>Copy</button>
        </footer>
      )}
    </article>
  );
}
