/** Neighbouring messages, which are drawn only near the view, so that a long conversation costs what is seen of it. */

import { createContext } from "preact";
import type { ComponentChildren } from "preact";
import { useContext, useLayoutEffect, useRef, useState } from "preact/hooks";

import type { Watcher } from "./Watcher.ts";

/** Messages of one chunk. */
export const CHUNK = 20;
/** CSS pixels of a message that was not drawn yet, about. */
const HEIGHT = 140;

export const Watching = createContext<Watcher | null>(null);

interface Props {
  /** The number of messages. */
  count: number;
  /** True for the end of the conversation, where the view begins. */
  last: boolean;
  /** Draws the messages. */
  children: () => ComponentChildren;
}

/** The messages, or an empty place of their height. A chunk in which a person edits a message stays. */
export function Chunk({ count, last, children }: Props) {
  const place = useRef<HTMLDivElement>(null);
  const height = useRef(count * HEIGHT);
  const watcher = useContext(Watching);
  const [near, setNear] = useState(last);
  useLayoutEffect(() => watcher?.watch(place.current!, (seen) => {
    if (!seen && place.current!.querySelector("form")) return;
    if (!seen) height.current = Math.max(1, place.current!.offsetHeight);
    setNear(seen);
  }), [watcher]);
  const shown = near || last;
  return <div class="chunk" ref={place} style={shown ? {} : { height: `${height.current}px` }}>{shown && children()}</div>;
}
