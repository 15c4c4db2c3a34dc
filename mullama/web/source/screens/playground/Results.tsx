/** The results of an answer's calls, given by hand. */

import { useState } from "preact/hooks";

import { visible } from "../../format/text.ts";
import type { ToolCall } from "../../state/conversations.ts";

interface Props {
  calls: ToolCall[];
  model: string;
  send: (results: string[]) => void;
}

/** One field for each call, and a button that continues the conversation. */
export function Results({ calls, model, send }: Props) {
  const [results, setResults] = useState<Record<string, string>>({});
  return (
    <form class="results" aria-label="Results of the calls" onSubmit={(event) => { event.preventDefault(); send(calls.map((call) => results[call.id] ?? "")); }}>
      {calls.map((call) => (
        <label key={call.id} class="field"><span>Result of <code>{visible(call.name)}</code></span>
          <textarea
            class="input mono" rows={2} spellcheck={false} placeholder="The text or JSON that the tool returns" value={results[call.id] ?? ""}
            onInput={(event) => setResults({ ...results, [call.id]: event.currentTarget.value })}
            onKeyDown={(event) => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.currentTarget.form!.requestSubmit(); }}
          />
        </label>
      ))}
      <p class="actions"><button class="button main">Give to {model} and continue</button><span class="quiet small"><kbd>Ctrl Enter</kbd></span></p>
    </form>
  );
}
