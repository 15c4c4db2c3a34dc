/** The messages of one column. The view follows the end until the person scrolls away from it. */

import { useEffect, useRef, useState } from "preact/hooks";

import { Empty } from "../../parts/Empty.tsx";
import { below, branch, lineOf } from "../../state/conversations.ts";
import type { Column, Conversation, Message } from "../../state/conversations.ts";
import { Chunk, CHUNK, Watching } from "./Chunk.tsx";
import { MessageView } from "./MessageView.tsx";
import type { Actions } from "./MessageView.tsx";
import { runOf } from "./runs.ts";
import { Watcher } from "./Watcher.ts";

interface Props {
  conversation: Conversation;
  column: Column;
  actions: Actions;
}

const NEAR = 1000;
/** CSS pixels from the end within which the view follows it. */
const AT_END = 48;

/** The list, oldest first. */
export function Messages({ conversation, column, actions }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const inner = useRef<HTMLDivElement>(null);
  const follows = useRef(true);
  const [away, setAway] = useState(false);
  const [watcher, setWatcher] = useState<Watcher | null>(null);
  const line = lineOf(conversation, column);
  const shown = branch(conversation.messages, line.leaf);
  const run = runOf(conversation.id, column);

  useEffect(() => {
    const made = new Watcher(place.current, NEAR);
    setWatcher(made);
    const toEnd = () => { if (follows.current && place.current) place.current.scrollTop = place.current.scrollHeight; };
    const sizes = new ResizeObserver(toEnd);
    sizes.observe(inner.current!);
    sizes.observe(place.current!);
    return () => { made.end(); sizes.disconnect(); };
  }, []);
  const ends = useRef(run);
  useEffect(() => {
    const ended = ends.current && !run;
    ends.current = run;
    if (ended) return; // the person may have scrolled away since
    follows.current = true;
    setAway(false);
    place.current!.scrollTop = place.current!.scrollHeight;
  }, [conversation.id, run]);
  const scrolled = () => {
    const { scrollHeight, scrollTop, clientHeight } = place.current!;
    follows.current = scrollHeight - scrollTop - clientHeight < AT_END;
    setAway(!follows.current);
  };
  return (
    <Watching.Provider value={watcher}>
      <div class="messages" ref={place} tabIndex={0} role="region" aria-label={`Messages with ${line.model}`} onScroll={scrolled}>
        <div class="inner" ref={inner}>
          {shown.length === 0 && <Empty title={`Ask ${line.model} something`}>Drop or paste pictures and sounds for models that see and hear.</Empty>}
          {watcher && chunks(shown).map((chunk, index, all) => (
            <Chunk key={index} count={chunk.length} last={index >= all.length - 2}>
              {() => chunk.map((message) => (
                <MessageView
                  key={message.id} message={message} actions={actions} busy={run !== undefined}
                  versions={below(conversation.messages, message.parent).map((one) => one.id).join(" ")}
                  run={run?.growing.peek().id === message.id ? run : undefined}
                />
              ))}
            </Chunk>
          ))}
        </div>
      </div>
      {away && <button class="button small to-end" onClick={() => { follows.current = true; place.current!.scrollTop = place.current!.scrollHeight; }}>↓ To the newest message</button>}
    </Watching.Provider>
  );
}

function chunks(messages: Message[]): Message[][] {
  return Array.from({ length: Math.ceil(messages.length / CHUNK) }, (_, index) => messages.slice(index * CHUNK, (index + 1) * CHUNK));
}
