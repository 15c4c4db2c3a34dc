/** The place where a message is written: text, pictures and sounds. */

import { useRef, useState } from "preact/hooks";

import type { Message } from "../../state/conversations.ts";

interface Props {
  busy: boolean;
  send: (text: string, media: Message["media"]) => void;
  stop: () => void;
}

/** Enter sends, Shift and Enter begin a line; files come by choice, drop or paste. */
export function Composer({ busy, send, stop }: Props) {
  const [text, setText] = useState("");
  const [media, setMedia] = useState<Message["media"]>([]);
  const [refusal, setRefusal] = useState("");
  const chooser = useRef<HTMLInputElement>(null);

  const take = async (files: Iterable<File>) => {
    for (const file of files) {
      if (!/^(image|audio)\//.test(file.type)) {
        setRefusal(`${file.name} is neither a picture nor a sound`);
        continue;
      }
      const data = await base64(file);
      setMedia((before) => [...before, { type: file.type, data }]);
    }
  };
  const submit = () => {
    if (busy || (!text.trim() && !media.length)) return;
    send(text, media);
    setText("");
    setMedia([]);
    setRefusal("");
  };
  return (
    <form
      class="composer"
      onSubmit={(event) => { event.preventDefault(); submit(); }}
      onDragOver={(event) => event.preventDefault()}
      onDrop={(event) => { event.preventDefault(); void take(event.dataTransfer?.files ?? []); }}
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
      {refusal && <p class="notice" role="alert">{refusal}</p>}
      <textarea
        class="input" rows={3} aria-label="Message" placeholder="Message" value={text}
        onInput={(event) => setText(event.currentTarget.value)}
        onPaste={(event) => { const files = event.clipboardData?.files; if (files?.length) { event.preventDefault(); void take(files); } }}
        onKeyDown={(event) => {
          if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); submit(); }
        }}
      />
      <p class="actions">
        <button type="button" class="button" onClick={() => chooser.current?.click()}>Add a file</button>
        <input ref={chooser} type="file" accept="image/*,audio/*" multiple hidden onChange={(event) => { void take(event.currentTarget.files ?? []); event.currentTarget.value = ""; }} />
        <span class="grow" />
        {busy
          ? <button type="button" class="button" onClick={stop}>Stop</button>
          : <button class="button main" disabled={!text.trim() && !media.length}>Send</button>}
      </p>
    </form>
  );
}

/** Show a picture or a sound of a message. */
export function Medium({ medium }: { medium: Message["media"][number] }) {
  const address = `data:${medium.type};base64,${medium.data}`;
  return medium.type.startsWith("image/") ? <img src={address} alt="attached picture" /> : <audio controls src={address} />;
}

function base64(file: File): Promise<string> {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(String(reader.result).split(",", 2)[1]!);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}
