/** One model of a conversation: its messages, the results of its calls, and its own stop. */

import { useEffect, useRef } from "preact/hooks";

import { count } from "../../format/units.ts";
import { Bar } from "../../parts/Bar.tsx";
import { branch, lineOf, openCalls } from "../../state/conversations.ts";
import type { Column, Conversation, Message } from "../../state/conversations.ts";
import type { Actions } from "./MessageView.tsx";
import { Messages } from "./Messages.tsx";
import { Results } from "./Results.tsx";
import { runOf } from "./runs.ts";
import type { Run } from "./runs.ts";
import type { ChatModel } from "./useModels.ts";

interface Props {
  conversation: Conversation;
  column: Column;
  models: ChatModel[];
  /** Called with the present values, so that the functions of `Actions` can stay the same. */
  show: (column: Column, id: string) => void;
  edit: (column: Column, message: Message, text: string) => void;
  again: (column: Column, message: Message) => void;
  give: (column: Column, results: string[]) => void;
  choose: (column: Column, model: string) => void;
  /** End the comparison and keep this column; undefined without a comparison. */
  keepAlone: ((column: Column) => void) | undefined;
}

/** The column. */
export function ColumnView(props: Props) {
  const { conversation, column, models, give, choose, keepAlone } = props;
  const now = useRef(props);
  useEffect(() => { now.current = props; });
  const actions = useRef<Actions>({
    show: (id) => now.current.show(now.current.column, id),
    edit: (message, text) => now.current.edit(now.current.column, message, text),
    again: (message) => now.current.again(now.current.column, message),
  });
  const line = lineOf(conversation, column);
  const run = runOf(conversation.id, column);
  const shown = branch(conversation.messages, line.leaf);
  const calls = run ? [] : openCalls(shown);
  const model = models.find((one) => one.name === line.model);
  return (
    <section class="column" aria-label={`Conversation with ${line.model}`}>
      <header>
          <select class="input" aria-label="Model" value={line.model} disabled={run !== undefined} onChange={(event) => choose(column, event.currentTarget.value)}>
            {models.map((one) => <option key={one.name}>{one.name}</option>)}
            {!model && <option>{line.model}</option>}
          </select>
        <Gauge messages={shown} run={run} size={model?.context_size ?? 0} />
        {keepAlone && (run
          ? <button class="button small" onClick={run.stop}>Stop {line.model}</button>
          : <button class="button plain small" onClick={() => keepAlone(column)}>Keep only this</button>)}
      </header>
      <Messages conversation={conversation} column={column} actions={actions.current} />
      {calls.length > 0 && <Results key={line.leaf} calls={calls} model={line.model} send={(results) => give(column, results)} />}
    </section>
  );
}

const NEARLY_FULL = 0.8;

function Gauge({ messages, run, size }: { messages: Message[]; run: Run | undefined; size: number }) {
  if (!size) return null;
  const stats = messages.findLast((one) => one.stats?.promptTokens)?.stats;
  const used = (stats ? stats.promptTokens + stats.tokens : 0) + (run ? run.pieces.value : 0);
  const label = `${count(used)} of ${count(size)} tokens of the context used`;
  const digits = count(size).length; // the width of the text stays the same while the number grows
  const warned = useRef(false);
  if (!run) warned.current = used / size > NEARLY_FULL;  // a notice that came while the answer streams would move its text
  return (
    <div class="gauge small quiet" title={label}>
      <span><span class="used" style={{ minWidth: `${digits}ch` }}>{count(used).padStart(digits, "\u2007")}</span> / {count(size)} tokens</span>
      <Bar value={used} whole={size} label={label} />
      {warned.current && <p class="notice">The context is nearly full. An answer ends where the context does, and the server leaves out the oldest turns of a longer conversation.</p>}
    </div>
  );
}
