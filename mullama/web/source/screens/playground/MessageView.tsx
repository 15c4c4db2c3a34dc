/** One message: its text, reasoning, media, calls and figures, and its other versions. */

import { memo } from "preact/compat";
import { useEffect, useRef, useState } from "preact/hooks";

import { visible } from "../../format/text.ts";
import { count, span } from "../../format/units.ts";
import { CopyButton } from "../../parts/CopyButton.tsx";
import type { Message } from "../../state/conversations.ts";
import { Markdown } from "./Markdown.tsx";
import { Medium } from "./Medium.tsx";
import type { Run } from "./runs.ts";

interface Props {
  message: Message;
  /** The ids of the messages at this place, oldest first. */
  versions: string;
  run: Run | undefined;
  busy: boolean;
  actions: Actions;
}

/** The actions on a message. The functions never change, so that other messages are not drawn again. */
export interface Actions {
  show: (id: string) => void;
  edit: (message: Message, text: string) => void;
  again: (message: Message) => void;
}

/** Characters of a text of the person that are shown at first. */
const MOST_TYPED = 20_000;

/** A message of the shown branch. The text stays the same element from its first piece on, so that nothing moves. */
export const MessageView = memo(function MessageView(props: Props) {
  const { message, run } = props;
  return (
    <article class={`message ${message.role}`} aria-busy={run !== undefined} data-id={message.id}>
      <Shown {...props} />
    </article>
  );
});

function author(message: Message): string {
  return message.role === "user" ? "You" : message.role === "tool" ? `Result of ${message.call?.name ?? "a tool"}` : message.model || "Model";
}

/** The parts of a message. Of an answer that grows, they are the only part of the page that is drawn for each piece. */
function Shown(props: Props) {
  const { run, busy, actions } = props;
  const message = run ? run.growing.value : props.message;
  const [draft, setDraft] = useState<string | null>(null);
  const [source, setSource] = useState(false);
  if (draft !== null) {
    const close = () => setDraft(null);
    return <><Head {...props} /><Edit text={draft} change={setDraft} busy={busy} close={close} done={() => { close(); actions.edit(message, draft); }} /></>;
  }
  return (
    <>
      <Head {...props} />
      {source ? <pre class="body" tabIndex={0}>{visible(message.content)}</pre> : <Content message={message} growing={run !== undefined} />}
      {!run && (
        <footer class="quiet small">
          <Figures message={message} />
          {message.role === "user" && <button class="button plain small" data-edit disabled={busy} onClick={() => setDraft(message.content)}>Edit</button>}
          {message.role === "assistant" && <button class="button plain small" disabled={busy} onClick={() => actions.again(message)}>Regenerate</button>}
          {message.role === "assistant" && <button class="button plain small" aria-pressed={source} onClick={() => setSource(!source)}>Source</button>}
          <CopyButton text={() => message.content} kind="plain small" />
        </footer>
      )}
    </>
  );
}

/** The speed of an answer that grows. It is above the text, because everything below would move with each line. */
function Speed({ run }: { run: Run }) {
  const pieces = run.pieces.value;
  const seconds = (performance.now() - run.first) / 1000;
  const text = pieces ? `${count(pieces)} tokens${seconds > 0.5 ? ` at ${Math.round(pieces / seconds)}/s` : ""}, first after ${span((run.first - run.begun) / 1000)}` : "Waiting for the first token…";
  return <span class="small growing">{text}</span>;
}

function Head({ message, versions, run, busy, actions }: Props) {
  const ids = versions.split(" ");
  const place = ids.indexOf(message.id);
  return (
    <header>
      <strong>{author(message)}</strong>
      {ids.length > 1 && (
        <span class="versions">
          <button class="button plain small" aria-label="Earlier version" disabled={place === 0 || busy} onClick={() => actions.show(ids[place - 1]!)}>‹</button>
          {place + 1} of {ids.length}
          <button class="button plain small" aria-label="Later version" disabled={place === ids.length - 1 || busy} onClick={() => actions.show(ids[place + 1]!)}>›</button>
        </span>
      )}
      {run && <Speed run={run} />}
    </header>
  );
}

interface EditProps {
  text: string;
  busy: boolean;
  change: (text: string) => void;
  close: () => void;
  done: () => void;
}

function Edit({ text, busy, change, close, done }: EditProps) {
  const area = useRef<HTMLTextAreaElement>(null);
  useEffect(() => area.current?.focus(), []);
  return (
    <form onSubmit={(event) => { event.preventDefault(); done(); }}>
      <textarea
        class="input" rows={Math.min(12, Math.max(3, text.split("\n").length))} aria-label="Edited message" value={text}
        ref={area}
        onInput={(event) => change(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key === "Escape") { event.stopPropagation(); close(); }
          if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !busy) { event.preventDefault(); done(); }
        }}
      />
      <p class="actions">
        <button class="button main" disabled={busy}>Ask again</button>
        <button class="button" type="button" onClick={close}>Cancel</button>
      </p>
    </form>
  );
}

function Content({ message, growing }: { message: Message; growing: boolean }) {
  return (
    <>
      {message.media.map((medium, index) => <Medium key={index} medium={medium} />)}
      {message.thinking && <Thinking text={message.thinking} growing={growing && !message.content} />}
      {message.role === "assistant" ? <Markdown text={message.content} growing={growing} /> : message.content && <Typed message={message} />}
      {message.calls.map((call) => (
        <section key={call.id} class="call" aria-label={`Call of ${call.name}`}>
          <p><span class="tag">calls</span> <code>{visible(call.name)}</code></p>
          <pre tabIndex={0}>{visible(JSON.stringify(call.arguments, null, 2))}</pre>
        </section>
      ))}
      {message.error && <div class="problem" role="alert"><p>{visible(message.error)}</p>{message.hint && <p class="quiet">{visible(message.hint)}</p>}</div>}
    </>
  );
}

/** A text of the person or of a tool; the beginning of a very long one. */
function Typed({ message }: { message: Message }) {
  const [whole, setWhole] = useState(false);
  const left = whole ? 0 : message.content.length - MOST_TYPED;
  return (
    <>
      <p class={message.role === "tool" ? "asked mono" : "asked"}>{visible(left > 0 ? message.content.slice(0, MOST_TYPED) : message.content)}</p>
      {left > 0 && <button class="button small" onClick={() => setWhole(true)}>Show {count(left)} more characters</button>}
    </>
  );
}

function Thinking({ text, growing }: { text: string; growing: boolean }) {
  const [open, setOpen] = useState(false);
  return (
    <details onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>{growing ? "Reasoning…" : "Reasoning"} <span class="quiet small">{count(text.length)} characters</span></summary>
      {open && <p class="thinking">{visible(text)}</p>}
    </details>
  );
}

function Figures({ message }: { message: Message }) {
  const { stats, ended } = message;
  const why = ended === "length" ? "ended at its limit of tokens or of the context" : ended === "stopped" ? "stopped" : "";
  if (!stats) return why ? <span>{why}</span> : null;
  return (
    <span>
      {count(stats.tokens)} tokens{stats.seconds > 0 && ` at ${(stats.tokens / stats.seconds).toFixed(stats.tokens / stats.seconds < 10 ? 1 : 0)}/s`},
      {" "}first after {span(stats.firstToken)}
      {stats.promptTokens > 0 && `, prompt of ${count(stats.promptTokens)}`}{stats.cachedTokens > 0 && ` (${count(stats.cachedTokens)} cached)`}
      {why && `, ${why}`}
    </span>
  );
}
