/** Conversations with models: branches, tools, media, parameters, two models side by side, and a load test. */

import { useEffect, useMemo, useState } from "preact/hooks";

import { visible } from "../../format/text.ts";
import { Empty } from "../../parts/Empty.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { open, parts, replace } from "../../shell/router.ts";
import * as store from "../../state/conversationStore.ts";
import { added, branch, created, exported, lineOf, message, newestLeaf, openCalls, withLeaf } from "../../state/conversations.ts";
import type { Column, Conversation, Medium, Message } from "../../state/conversations.ts";
import { download } from "../../parts/download.ts";
import { body, Mistake } from "./body.ts";
import { ColumnView } from "./ColumnView.tsx";
import { Composer } from "./Composer.tsx";
import { EXPORT_NAME, List } from "./List.tsx";
import { LoadTest } from "./LoadTest.tsx";
import { begin, finished, runs, stopAll } from "./runs.ts";
import { Settings } from "./Settings.tsx";
import { useModels } from "./useModels.ts";
import type { ChatModel } from "./useModels.ts";

const SCREEN = "playground";
const LOAD = "load";
const WITH = "with";

/** The screen. Its address names the conversation; `#/playground/with/NAME` begins one with that model. */
export function Playground() {
  useEffect(() => { if (!store.loaded.value) void store.load(); }, []);
  const { known, error } = useModels();
  const usable = known ?? [];
  const first = (usable.find((model) => model.is_default) ?? usable[0])?.name ?? "";
  const id = parts.value[1];
  const newest = store.loaded.value ? store.conversations.value[0]?.id : undefined;
  useEffect(() => { if (!id && newest) replace(SCREEN, newest); }, [id, newest]);
  const wanted = id === WITH ? parts.value[2] : undefined;
  const ready = store.loaded.value;
  useEffect(() => {
    if (wanted === undefined || !ready) return;
    const unused = store.conversations.value.find((one) => one.model === wanted && !Object.keys(one.messages).length);
    const next = unused ?? created(wanted);
    if (!unused) store.put(next);
    replace(SCREEN, next.id);
  }, [wanted, ready]);
  const blank = useMemo(() => created(""), [id]);
  if (!known) return error ? <Problem title="The models could not be read" error={error} /> : <p class="quiet" aria-busy="true">Connecting…</p>;
  if (!first) return <Empty title="No model is served">Declare one in the manifest, and run <code>mullama apply</code>.</Empty>;
  if (id === LOAD) return <LoadTest models={usable.map((model) => model.name)} first={first} />;
  if (!ready || wanted !== undefined) return <p class="quiet" aria-busy="true">Loading…</p>;
  const kept = (id && store.found(id)) || (id ? { ...blank, id } : blank);
  return <Chat key={kept.id} conversation={kept.model ? kept : { ...kept, model: first }} models={usable} first={first} />;
}

interface ChatProps {
  conversation: Conversation;
  models: ChatModel[];
  first: string;
}

type Side = "" | "list" | "settings";

function Chat({ conversation, models: usable, first }: ChatProps) {
  const [side, setSide] = useState<Side>("");
  const [mistake, setMistake] = useState<Mistake | null>(null);
  const columns: Column[] = conversation.beside ? [0, 1] : [0];
  const busy = runs.value.some((run) => run.conversation === conversation.id);

  /** Return the conversation as it is now: an answer may have grown since it was drawn. */
  const now = () => store.found(conversation.id) ?? conversation;
  const change = (parts: Partial<Conversation>) => {
    setMistake(null);
    store.put({ ...now(), model: now().model || first, ...parts });
  };
  const create = () => {
    const next = created(first, now());
    store.put(next);
    open(SCREEN, next.id);
    setSide("");
  };
  /** Keep a conversation and ask for its next messages; false if its settings have a mistake. */
  const ask = (asked: Conversation, which: Column[]): boolean => {
    setMistake(null);
    try {
      for (const column of which) body(asked, column, []);
    } catch (error) {
      if (!(error instanceof Mistake)) throw error;
      setMistake(error);
      setSide("settings");
      return false;
    }
    store.put(asked);
    for (const column of which) void begin(asked.id, column);
    if (parts.value[1] !== asked.id) replace(SCREEN, asked.id);
    return true;
  };
  const send = (content: string, media: Medium[]): boolean => {
    let next = now();
    for (const column of columns) {
      const { leaf } = lineOf(next, column);
      // The first question of both columns is one message.
      const shared = column === 1 && leaf === lineOf(now(), 0).leaf ? next.leaf : null;
      next = shared ? withLeaf(next, 1, shared) : added(next, column, message({ role: "user", content, media, parent: leaf }));
    }
    return ask(next, columns);
  };
  const edit = (column: Column, old: Message, content: string) =>
    void ask(added(now(), column, message({ role: "user", content, media: old.media, parent: old.parent })), [column]);
  const again = (column: Column, old: Message) => void ask(withLeaf(now(), column, old.parent), [column]);
  const give = (column: Column, results: string[]) => {
    let next = now();
    const calls = openCalls(branch(next.messages, lineOf(next, column).leaf));
    calls.forEach((call, index) => {
      const { leaf } = lineOf(next, column);
      next = added(next, column, message({ role: "tool", content: results[index] ?? "", call: { id: call.id, name: call.name }, parent: leaf }));
    });
    void ask(next, [column]);
  };
  const choose = (column: Column, model: string) => change(column === 1 ? { beside: { ...now().beside!, model } } : { model });
  const compare = () => {
    const other = usable.find((one) => one.name !== conversation.model)?.name ?? conversation.model;
    change({ beside: conversation.beside ? null : { model: other, leaf: now().leaf } });
  };
  const keepAlone = (column: Column) => change(column === 1 ? { ...now().beside!, beside: null } : { beside: null });
  const editLast = () => [...document.querySelectorAll<HTMLButtonElement>(".column:first-of-type [data-edit]")].at(-1)?.click();

  useEffect(() => {
    const stop = (event: KeyboardEvent) => { if (event.key === "Escape" && !event.defaultPrevented) stopAll(conversation.id); };
    window.addEventListener("keydown", stop);
    return () => window.removeEventListener("keydown", stop);
  }, [conversation.id]);

  const toggle = (name: Side) => setSide(side === name ? "" : name);
  return (
    <div class="playground" data-side={side}>
      <List current={conversation} create={create} chosen={() => setSide("")} />
      <section class="chat" aria-label="Conversation">
        <header class="chat-tools">
          <h1>{visible(conversation.title)}</h1>
          <button class="button small only-narrow" aria-expanded={side === "list"} onClick={() => toggle("list")}>Conversations</button>
          <button class="button small" aria-pressed={conversation.beside !== null} disabled={busy} onClick={compare}>Compare</button>
          <button class="button small" onClick={() => open(SCREEN, LOAD)}>Load test</button>
          <button class="button small only-middle" aria-expanded={side === "settings"} onClick={() => toggle("settings")}>Settings</button>
        </header>
        <div class={columns.length > 1 ? "chat-columns two" : "chat-columns"}>
          {columns.map((column) => (
            <ColumnView
              key={column} conversation={conversation} column={column} models={usable} give={give} choose={choose} edit={edit} again={again}
              show={(which, shown) => store.put(withLeaf(now(), which, newestLeaf(now().messages, shown)))}
              keepAlone={conversation.beside ? keepAlone : undefined}
            />
          ))}
        </div>
        <Unkept />
        {mistake && <p class="problem" role="alert">{mistake.message}</p>}
        <Composer
          id={conversation.id} models={columns.map((column) => lineOf(conversation, column).model)} busy={busy} send={send}
          stop={() => stopAll(conversation.id)} editLast={editLast}
        />
      </section>
      <Settings conversation={conversation} models={usable} change={change} mistake={mistake?.field ?? ""} />
      <p class="visually-hidden" role="status">{finished.value}</p>
    </div>
  );
}

/** The notice that this browser keeps nothing, with the way to a file. */
function Unkept() {
  if (!store.storageError.value) return null;
  return (
    <div class="notice" role="alert">
      <p>This browser does not keep the conversations: {store.storageError.value}. They last until this tab is closed.</p>
      <button class="button small" onClick={() => download(exported(store.conversations.value), EXPORT_NAME, "application/json")}>Export them to a file</button>
    </div>
  );
}
