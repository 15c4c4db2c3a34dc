/** The place where a message is written: text, pictures and sounds. */

import { useEffect, useRef, useState } from "preact/hooks";

import { ApiError } from "../../api/client.ts";
import { Problem } from "../../parts/Problem.tsx";
import { keep, recalled } from "../../state/browserStorage.ts";
import type { Medium as Kept } from "../../state/conversations.ts";
import { checkMedium } from "./facts.ts";
import { Medium } from "./Medium.tsx";

interface Props {
  /** The conversation, whose unsent text is kept for the tab. */
  id: string;
  models: string[];
  busy: boolean;
  /** Return false if the message was not sent: it is kept then. */
  send: (text: string, media: Kept[]) => boolean;
  stop: () => void;
  editLast: () => void;
}

interface Refusal {
  name: string;
  error: unknown;
}

/** Enter sends, Shift and Enter begin a line; files come by choice, drop or paste. */
export function Composer({ id, models, busy, send, stop, editLast }: Props) {
  const stored = `mullama-unsent-${id}`;
  const [text, setText] = useState(recalled("tab", stored) ?? "");
  const [media, setMedia] = useState<Kept[]>([]);
  const [refusals, setRefusals] = useState<Refusal[]>([]);
  const [checking, setChecking] = useState(0);
  const [over, setOver] = useState(false);
  const chooser = useRef<HTMLInputElement>(null);
  const area = useRef<HTMLTextAreaElement>(null);

  useEffect(() => {
    setText(recalled("tab", stored) ?? "");
    setMedia([]);
    setRefusals([]);
    area.current?.focus();
  }, [id]);
  const type = (next: string) => {
    setText(next);
    keep("tab", stored, next);
  };
  const take = async (files: Iterable<File>) => {
    setRefusals([]);
    for (const file of files) {
      try {
        if (!/^(image|audio)\//.test(file.type)) throw new Error("it is neither a picture nor a sound; paste a text instead");
        const medium = { type: file.type.split(";")[0]!, data: await base64(file) };
        setChecking((count) => count + 1);
        try {
          await checkMedium(models, medium);
        } catch (error) {
          // The server refuses it when it is sent, too. Without an answer, it is attached and sent later.
          if (!(error instanceof ApiError) || (error.status >= 400 && error.status < 500 && error.status !== 401 && error.status !== 429)) throw error;
        } finally {
          setChecking((count) => count - 1);
        }
        setMedia((before) => [...before, medium]);
      } catch (error) {
        setRefusals((before) => [...before, { name: file.name || "the pasted file", error }]);
      }
    }
  };
  const submit = () => {
    if (busy || checking || (!text.trim() && !media.length)) return;
    if (!send(text, media)) return;
    type("");
    setMedia([]);
    setRefusals([]);
  };
  return (
    <form
      class={over ? "composer over" : "composer"}
      onSubmit={(event) => { event.preventDefault(); submit(); }}
      onDragOver={(event) => { event.preventDefault(); setOver(true); }}
      onDragLeave={() => setOver(false)}
      onDrop={(event) => { event.preventDefault(); setOver(false); void take(event.dataTransfer?.files ?? []); }}
    >
      {media.length > 0 && (
        <ul class="media">
          {media.map((medium, index) => (
            <li key={index}>
              <Medium medium={medium} />
              <button type="button" class="button plain small" onClick={() => setMedia(media.filter((_, other) => other !== index))}>Remove</button>
            </li>
          ))}
        </ul>
      )}
      {refusals.map((refusal, index) => <Problem key={index} title={`${refusal.name} was not attached`} error={refusal.error} />)}
      <textarea
        ref={area} class="input" rows={2} aria-label="Message" placeholder="Message" value={text} aria-describedby="chat-keys"
        onInput={(event) => type(event.currentTarget.value)}
        onPaste={(event) => { const files = event.clipboardData?.files; if (files?.length) { event.preventDefault(); void take([...files]); } }}
        onKeyDown={(event) => {
          if (event.isComposing) return;
          if (event.key === "Enter" && !event.shiftKey) { event.preventDefault(); submit(); }
          if (event.key === "ArrowUp" && !text) { event.preventDefault(); editLast(); }
        }}
      />
      <p class="actions">
        <button type="button" class="button" onClick={() => chooser.current?.click()}>Add a file</button>
        <input ref={chooser} type="file" accept="image/*,audio/*" multiple hidden aria-label="Picture or sound" onChange={(event) => { void take([...(event.currentTarget.files ?? [])]); event.currentTarget.value = ""; }} />
        <span class="grow quiet small keys" id="chat-keys">
          <kbd>Enter</kbd> sends · <kbd>Shift Enter</kbd> new line · <kbd>Esc</kbd> stops · <kbd>↑</kbd> edits the last question
        </span>
        {/* The keys keep them apart: an element that changes its type during a click would submit the form. */}
        {busy
          ? <button key="stop" type="button" class="button" onClick={() => { stop(); area.current?.focus(); }}>Stop</button>
          : <button key="send" class="button main" disabled={checking > 0 || (!text.trim() && !media.length)}>{checking ? "Checking…" : "Send"}</button>}
      </p>
    </form>
  );
}

function base64(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).split(",", 2)[1] ?? "");
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
