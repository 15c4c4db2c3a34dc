/** A conversation with a model: branches, media, parameters, and the same request in other forms. */

import { useEffect, useRef, useState } from "preact/hooks";

import { Empty } from "../../parts/Empty.tsx";
import * as store from "../../state/conversations.ts";
import type { Conversation, Message } from "../../state/conversations.ts";
import { models } from "../../state/live.ts";
import { answer } from "./answer.ts";
import { Composer } from "./Composer.tsx";
import { List } from "./List.tsx";
import { MessageView } from "./MessageView.tsx";
import { Settings } from "./Settings.tsx";

/** The screen. */
export function Playground() {
  const [current, setCurrent] = useState<Conversation | null>(null);
  const [busy, setBusy] = useState<AbortController | null>(null);
  const bottom = useRef<HTMLDivElement>(null);
  const usable = models.value.filter((model) => model.state !== "failed");
  const first = (usable.find((model) => model.is_default) ?? usable[0])?.name ?? "";

  useEffect(() => {
    void store.load().then(() => setCurrent((known) => known ?? store.conversations.value[0] ?? null));
  }, []);
  const shown = current ?? store.created(first);
  const conversation = shown.model ? shown : { ...shown, model: first };
  const messages = store.branch(conversation);

  const change = (next: Conversation) => {
    setCurrent(next);
    if (next.leaf !== null) void store.save(next);
  };

  /** Add a message for the answer below the shown branch, and let the model fill it. */
  const ask = async (asked: Conversation) => {
    const reply: Message = {
      id: crypto.randomUUID(), parent: asked.leaf, role: "assistant", content: "", thinking: "", media: [], model: asked.model,
    };
    let latest = store.added(asked, reply);
    setCurrent(latest);
    const stop = new AbortController();
    setBusy(stop);
    await answer(asked, store.branch(asked), (part) => {
      latest = { ...latest, messages: { ...latest.messages, [reply.id]: { ...latest.messages[reply.id]!, ...part } } };
      setCurrent((known) => (known?.id === latest.id ? latest : known));
    }, stop.signal);
    setBusy(null);
    await store.save(latest);
  };

  const send = (content: string, media: Message["media"], parent = conversation.leaf) => {
    const message: Message = { id: crypto.randomUUID(), parent, role: "user", content, thinking: "", media };
    void ask(store.added({ ...conversation, leaf: parent }, message));
  };

  useEffect(() => {
    const place = bottom.current?.parentElement;
    if (place && place.scrollHeight - place.scrollTop - place.clientHeight < 120) place.scrollTop = place.scrollHeight;
  });

  if (!first) return <Empty title="No model is served">Declare one in the manifest, and run <code>mullama apply</code>.</Empty>;
  return (
    <div class="playground">
      <List current={conversation} open={setCurrent} create={() => setCurrent(store.created(first, conversation))} />
      <section class="chat" aria-label="Conversation">
        <div class="messages" tabIndex={0} aria-label="Messages">
          {messages.length === 0 && <Empty title={`Ask ${conversation.model} something`}>Drop or paste pictures and sounds for models that see and hear.</Empty>}
          {messages.map((message) => (
            <MessageView
              key={message.id}
              message={message}
              siblings={store.siblings(conversation, message)}
              busy={busy !== null}
              growing={busy !== null && message.id === conversation.leaf}
              show={(id) => change({ ...conversation, leaf: store.newestLeaf(conversation, id) })}
              edit={(text) => send(text, message.media, message.parent)}
              again={() => void ask({ ...conversation, leaf: message.parent })}
            />
          ))}
          <div ref={bottom} />
        </div>
        {store.storageError.value && <p class="notice">{store.storageError.value}</p>}
        <Composer busy={busy !== null} send={(text, media) => send(text, media)} stop={() => busy?.abort()} />
      </section>
      <Settings conversation={conversation} messages={messages} models={usable} change={change} />
    </div>
  );
}
