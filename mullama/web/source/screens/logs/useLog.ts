/** Reads the log and follows it: the last lines first, then each new one, at most once a frame. */

import { useEffect, useRef, useState } from "preact/hooks";

import { ask } from "../../api/client.ts";
import { serverEvents } from "../../api/streams.ts";
import type { LogAnswer, LogLine } from "../../api/types.ts";
import { onHidden, shown, untilShown } from "../../state/shown.ts";

export interface Filter {
  model: string;
  part: string;
  level: string;
  text: string;
}

export interface Log {
  lines: LogLine[];
  /** Lines that came while the reader paused. */
  waiting: number;
  /** Lines that the server did not keep for this reader. */
  dropped: number;
  reading: boolean;
  error: unknown;
}

export const KEPT = 10_000;
const TYPING = 250;
const NOTHING: Log = { lines: [], waiting: 0, dropped: 0, reading: true, error: null };

/** Return the lines that a reader who paused has not seen: all of them if the server was started again. */
export function newer(last: number, answer: LogAnswer): LogLine[] {
  return answer.last < last ? answer.lines : answer.lines.filter((line) => line.id > last);
}

/** Return the log with a filter. While it does not follow, new lines wait. */
export function useLog(filter: Filter, following: boolean): Log {
  const [log, setLog] = useState<Log>(NOTHING);
  const fresh = useRef<LogLine[]>([]);
  const follows = useRef(following);
  const dropped = useRef(0);
  follows.current = following;
  const shownLast = useRef(0);
  shownLast.current = log.lines.at(-1)?.id ?? 0;

  const take = useRef(() => {
    setLog((before) => {
      if (!follows.current) return { ...before, waiting: fresh.current.length, dropped: dropped.current };
      const lines = fresh.current.length ? [...before.lines, ...fresh.current].slice(-KEPT) : before.lines;
      fresh.current = [];
      return { ...before, lines, waiting: 0, dropped: dropped.current };
    });
  });
  useEffect(() => { if (following) take.current(); }, [following]);

  const query = new URLSearchParams(Object.entries(filter).filter(([, value]) => value)).toString();
  useEffect(() => {
    const stop = new AbortController();
    let frame = 0;
    const timer = setTimeout(() => {
      fresh.current = []; dropped.current = 0;
      setLog((before) => ({ ...NOTHING, lines: before.lines }));
      void (async () => {
        let last = -1;
        let first = true; // the lines of another filter are never kept, also while the reader has paused
        let pause = 500;
        while (!stop.signal.aborted) {
          await untilShown();
          const hidden = new AbortController();
          const stay = onHidden(() => hidden.abort());
          const signal = AbortSignal.any([stop.signal, hidden.signal]);
          try {
            if (last < 0) {
              const answer = await ask<LogAnswer>(`api/v1/logs?tail=${KEPT}&${query}`, { signal });
              last = answer.last;
              const whole = first || follows.current;
              first = false;
              fresh.current = whole ? [] : newer(shownLast.current, answer);
              setLog((before) => ({ ...NOTHING, lines: whole ? answer.lines : before.lines, waiting: fresh.current.length, reading: false }));
            }
            for await (const data of serverEvents(`api/v1/logs/events?after=${last}&${query}`, { signal })) {
              const line = JSON.parse(data) as LogLine & { dropped: number };
              last = line.id; pause = 500;
              dropped.current += line.dropped;
              fresh.current.push(line);
              if (fresh.current.length > KEPT) fresh.current.splice(0, fresh.current.length - KEPT);
              if (!frame) frame = requestAnimationFrame(() => { frame = 0; take.current(); });
            }
          } catch (error) {
            if (stop.signal.aborted) return;
            if (shown.value) setLog((before) => ({ ...before, reading: false, error }));
          } finally {
            stay();
            last = -1; // the server may have been started again: its ids begin anew, so everything is read again
          }
          if (!shown.value) continue;
          await new Promise((resolve) => setTimeout(resolve, pause));
          pause = Math.min(pause * 2, 8000);
        }
      })();
    }, TYPING);
    return () => { clearTimeout(timer); cancelAnimationFrame(frame); stop.abort(); };
  }, [query]);
  return log;
}
