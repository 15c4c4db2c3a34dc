/** The settings of a conversation: model, system prompt, parameters, schema; and its request in other forms. */

import { useState } from "preact/hooks";

import type { Model } from "../../api/types.ts";
import { count } from "../../format/units.ts";
import { Bar } from "../../parts/Bar.tsx";
import type { Conversation, Message, Options } from "../../state/conversations.ts";
import { FORMS, shown } from "./requestForms.ts";

interface Props {
  conversation: Conversation;
  messages: Message[];
  models: Model[];
  change: (next: Conversation) => void;
}

const NAMES: Record<keyof Options, string> = { temperature: "Temperature", top_p: "Top p", num_predict: "Maximum tokens", seed: "Seed" };

/** The column beside the conversation. */
export function Settings({ conversation, messages, models, change }: Props) {
  const model = models.find((one) => one.name === conversation.model);
  const set = (part: Partial<Conversation>) => change({ ...conversation, ...part });
  return (
    <aside class="settings" aria-label="Settings">
      <label class="field"><span>Model</span>
        <select class="input" value={conversation.model} onChange={(event) => set({ model: event.currentTarget.value })}>
          {models.map((one) => <option key={one.name}>{one.name}</option>)}
          {!model && <option>{conversation.model}</option>}
        </select>
      </label>
      {model && <Gauge messages={messages} size={model.context_size} />}
      <label class="field"><span>System prompt; the manifest's if it is empty</span>
        <textarea class="input" rows={3} value={conversation.system} onInput={(event) => set({ system: event.currentTarget.value })} />
      </label>
      <div class="pairs">
        {(Object.keys(NAMES) as (keyof Options)[]).map((name) => (
          <label key={name} class="field"><span>{NAMES[name]}</span>
            <input class="input" inputMode="decimal" value={conversation.options[name]} placeholder="manifest"
              onInput={(event) => set({ options: { ...conversation.options, [name]: event.currentTarget.value } })} />
          </label>
        ))}
      </div>
      <label class="field"><span>JSON schema of the answer</span>
        <textarea class="input mono" rows={3} spellcheck={false} value={conversation.schema} onInput={(event) => set({ schema: event.currentTarget.value })} />
      </label>
      <ShowAs conversation={conversation} messages={messages} />
    </aside>
  );
}

function Gauge({ messages, size }: { messages: Message[]; size: number }) {
  const stats = messages.findLast((one) => one.stats)?.stats;
  const used = stats ? stats.promptTokens + stats.tokens : 0;
  const label = `${count(used)} of ${count(size)} tokens of the context used`;
  return <div class="field"><span>{label}</span><Bar value={used} whole={size} label={label} /></div>;
}

function ShowAs({ conversation, messages }: { conversation: Conversation; messages: Message[] }) {
  const [form, setForm] = useState<keyof typeof FORMS>("curl");
  return (
    <details class="show-as">
      <summary>Show the request as code</summary>
      <label class="field"><span>Form</span>
        <select class="input" value={form} onChange={(event) => setForm(event.currentTarget.value as keyof typeof FORMS)}>
          {Object.entries(FORMS).map(([name, title]) => <option key={name} value={name}>{title}</option>)}
        </select>
      </label>
      <pre class="body" tabIndex={0}>{shown(form, conversation, messages)}</pre>
    </details>
  );
}
