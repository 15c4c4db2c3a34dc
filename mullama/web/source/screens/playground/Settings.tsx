/** The settings of a conversation: system prompt, reasoning, parameters, tools, schema; and its request as code. */

import { useEffect } from "preact/hooks";

import { branch } from "../../state/conversations.ts";
import type { Conversation } from "../../state/conversations.ts";
import { facts, wantFacts } from "./facts.ts";
import { Parameters } from "./Parameters.tsx";
import { ShowAs } from "./ShowAs.tsx";
import type { ChatModel } from "./useModels.ts";

interface Props {
  conversation: Conversation;
  models: ChatModel[];
  change: (parts: Partial<Conversation>) => void;
  /** The field whose content cannot be sent; empty for none. */
  mistake: string;
}

const EXAMPLE_TOOLS = [
  {
    name: "get_weather", description: "The weather of a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
];
const EXAMPLE_SCHEMA = { type: "object", properties: { answer: { type: "string" } }, required: ["answer"], additionalProperties: false };
const THINKING: [string, string][] = [["", "manifest"], ["on", "on"], ["off", "off"], ["low", "low"], ["medium", "medium"], ["high", "high"]];

/** The column beside the conversation. */
export function Settings({ conversation, models, change, mistake }: Props) {
  const names = [conversation.model, ...(conversation.beside ? [conversation.beside.model] : [])];
  useEffect(() => {
    for (const name of names) wantFacts(name, models.find((one) => one.name === name)?.revision ?? "");
  });
  const known = names.map((name) => facts.value[name]);
  const thinks = known.some((one) => one?.capabilities.includes("thinking"));
  return (
    <aside class="settings" aria-label="Settings">
      <label class="field"><span>Title</span>
        <input class="input" value={conversation.title} onChange={(event) => change({ title: event.currentTarget.value.trim() || conversation.title })} />
      </label>
      <label class="field"><span>System prompt; the manifest's if it is empty</span>
        <textarea class="input" rows={3} value={conversation.system} onInput={(event) => change({ system: event.currentTarget.value })} />
      </label>
      {(thinks || conversation.think) && (
        <label class="field"><span>Reasoning</span>
          <select class="input" value={conversation.think} onChange={(event) => change({ think: event.currentTarget.value })}>
            {THINKING.map(([value, title]) => <option key={value} value={value}>{title}</option>)}
          </select>
        </label>
      )}
      <Parameters options={conversation.options} declared={known[0]?.settings ?? {}} change={(options) => change({ options })} />
      <Json
        title="Tools" note="their results are given by hand" value={conversation.tools} wrong={mistake === "tools"} example={EXAMPLE_TOOLS}
        change={(tools) => change({ tools })}
      />
      <Json
        title="JSON schema of the answer" note="" value={conversation.schema} wrong={mistake === "schema"} example={EXAMPLE_SCHEMA}
        change={(schema) => change({ schema })}
      />
      <ShowAs conversation={conversation} messages={branch(conversation.messages, conversation.leaf)} />
    </aside>
  );
}

interface JsonProps {
  title: string;
  note: string;
  value: string;
  wrong: boolean;
  example: unknown;
  change: (text: string) => void;
}

function Json({ title, note, value, wrong, example, change }: JsonProps) {
  const error = mistakeOf(value);
  return (
    <details open={wrong || undefined}>
      <summary>{title}{value.trim() && !error && <span class="tag">set</span>}{error && <span class="tag bad">not JSON</span>}</summary>
      <label class="field"><span>JSON{note && `; ${note}`}</span>
        <textarea class="input mono" rows={6} spellcheck={false} aria-invalid={error !== ""} value={value} aria-label={title} onInput={(event) => change(event.currentTarget.value)} />
      </label>
      {error && <p class="refusal small">{error}</p>}
      {!value.trim() && <button type="button" class="button plain small" onClick={() => change(JSON.stringify(example, null, 1))}>Insert an example</button>}
    </details>
  );
}

function mistakeOf(text: string): string {
  if (!text.trim()) return "";
  try {
    JSON.parse(text);
    return "";
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}
