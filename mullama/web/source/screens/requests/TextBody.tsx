/** A captured text: the beginning of a long one, with ways to the whole. */

import { useState } from "preact/hooks";

import { cut, visible } from "../../format/text.ts";
import { count } from "../../format/units.ts";
import { CopyButton } from "../../parts/CopyButton.tsx";
import { download } from "../../parts/download.ts";
import { Empty } from "../../parts/Empty.tsx";

const MOST = 100_000;

interface Props {
  title: string;
  content: string | null | undefined;
  /** The name of the file of a download. */
  file: string;
  children?: preact.ComponentChildren;
}

/** A panel with the text. Control characters and marks of direction are shown as such. */
export function TextBody({ title, content, file, children }: Props) {
  const [most, setMost] = useState(MOST);
  const [text, left] = cut(content ?? "", most);
  return (
    <section class="panel" aria-label={title}>
      <header>
        <h2>{title}</h2>
        {content != null && (
          <>
            <span class="quiet small">{count(content.length)} characters</span>
            <CopyButton text={() => content} kind="small" />
            <button class="button small" onClick={() => download(content, file, "text/plain")}>Download</button>
          </>
        )}
      </header>
      {content == null ? <Empty title="Not kept">{children}</Empty> : <pre class="body" tabIndex={0}>{visible(text)}</pre>}
      {left > 0 && <p class="actions inside"><button class="button small" onClick={() => setMost(most + MOST)}>Show more; {count(left)} characters are left</button></p>}
    </section>
  );
}

/** Return a JSON text as people read it, with its long strings shortened: media are base64. */
export function readable(json: string): string {
  try {
    return JSON.stringify(JSON.parse(json), shortened, 2);
  } catch {
    return json;
  }
}

const LONG = 2000;
const SHOWN = 60;

function shortened(_: string, value: unknown): unknown {
  if (typeof value !== "string" || value.length <= LONG || !/^[\w+/=:;,.-]+$/.test(value)) return value;
  return `${value.slice(0, SHOWN)}… (${count(value.length)} characters)`;
}
