/** The request of the shown branch as code for the clients of each dialect. */

import { useState } from "preact/hooks";

import { base } from "../../api/base.ts";
import { key } from "../../api/client.ts";
import { CopyButton } from "../../parts/CopyButton.tsx";
import type { Conversation, Message } from "../../state/conversations.ts";
import { Mistake } from "./body.ts";
import { FORMS, snippet } from "./requestForms.ts";
import type { Form } from "./requestForms.ts";

/** A fold with the code; it sends the last question of the branch again. */
export function ShowAs({ conversation, messages }: { conversation: Conversation; messages: Message[] }) {
  const [form, setForm] = useState<Form>("curl");
  const [open, setOpen] = useState(false);
  return (
    <details class="show-as" onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>Show the request as code</summary>
      {open && (
        <>
          <label class="field"><span>Form</span>
            <select class="input" value={form} onChange={(event) => setForm(event.currentTarget.value as Form)}>
              {Object.entries(FORMS).map(([name, title]) => <option key={name} value={name}>{title}</option>)}
            </select>
          </label>
          <Code form={form} conversation={conversation} messages={messages} />
        </>
      )}
    </details>
  );
}

function Code({ form, conversation, messages }: { form: Form; conversation: Conversation; messages: Message[] }) {
  const last = messages.findLastIndex((one) => one.role !== "assistant");
  if (last < 0) return <p class="quiet small">Ask something first.</p>;
  let text: string;
  try {
    text = snippet(form, { base: base.href.replace(/\/$/, ""), keyed: key.value !== "", conversation, messages: messages.slice(0, last + 1) });
  } catch (error) {
    if (error instanceof Mistake) return <p class="refusal small">{error.message}</p>;
    throw error;
  }
  return (
    <>
      <pre class="code" tabIndex={0} aria-label="Code of the request">{text}</pre>
      <CopyButton text={() => text} label="Copy the code" kind="small" />
    </>
  );
}
