/** The lines of a log as a list of which only the part in view exists, so that its length costs nothing. */

import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";

import type { LogLine } from "../../api/types.ts";
import { visible } from "../../format/text.ts";

const HEIGHT = 22;
const BEYOND = 12;
const SHOWN = 400;
const MARKS: Record<string, [shape: string, tone: string]> = {
  debug: ["○", "idle"], info: ["●", "good"], warning: ["▲", "warn"], error: ["■", "bad"], critical: ["■", "bad"],
};

interface Props {
  lines: LogLine[];
  following: boolean;
  /** Called when the reader leaves the end. */
  pause: () => void;
  chosen: LogLine | null;
  choose: (line: LogLine) => void;
}

/** The list: arrows, Page Up and Down, Home and End choose a line, which is shown in full below. */
export function LogList({ lines, following, pause, chosen, choose }: Props) {
  const box = useRef<HTMLDivElement>(null);
  const [view, setView] = useState({ top: 0, height: 600 });
  const first = Math.max(0, Math.floor(view.top / HEIGHT) - BEYOND);
  const last = Math.min(lines.length, Math.ceil((view.top + view.height) / HEIGHT) + BEYOND);

  useLayoutEffect(() => {
    if (following && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines, following]);
  useEffect(() => {
    const place = box.current!;
    const watch = new ResizeObserver(() => setView({ top: place.scrollTop, height: place.clientHeight }));
    watch.observe(place);
    return () => watch.disconnect();
  }, []);

  const scrolled = () => {
    const { scrollTop, clientHeight, scrollHeight } = box.current!;
    setView({ top: scrollTop, height: clientHeight });
    if (following && scrollTop + clientHeight < scrollHeight - 2 * HEIGHT) pause();
  };
  const move = (event: KeyboardEvent) => {
    const page = Math.max(1, Math.floor(view.height / HEIGHT) - 1);
    const steps: Record<string, number> = { ArrowUp: -1, ArrowDown: 1, PageUp: -page, PageDown: page, Home: -Infinity, End: Infinity };
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    const at = chosen ? lines.findIndex((line) => line.id === chosen.id) : lines.length;
    const next = Math.min(lines.length - 1, Math.max(0, (at < 0 ? lines.length : at) + step));
    pause();
    choose(lines[next]!);
    const place = box.current!;
    if (next * HEIGHT < place.scrollTop) place.scrollTop = next * HEIGHT;
    else if ((next + 1) * HEIGHT > place.scrollTop + place.clientHeight) place.scrollTop = (next + 1) * HEIGHT - place.clientHeight;
  };
  return (
    <div
      class="log-list" ref={box} role="listbox" tabIndex={0} aria-label="Lines of the log"
      aria-activedescendant={chosen && lines.slice(first, last).some((line) => line.id === chosen.id) ? `line-${chosen.id}` : undefined}
      onScroll={scrolled} onKeyDown={move}
    >
      <div role="presentation" class="log-space" style={{ height: `${lines.length * HEIGHT}px` }}>
        {lines.slice(first, last).map((line, index) => (
          <Line key={line.id} line={line} top={(first + index) * HEIGHT} place={first + index + 1} all={lines.length} chosen={line.id === chosen?.id} choose={choose} pause={pause} />
        ))}
      </div>
    </div>
  );
}

interface LineProps extends Pick<Props, "choose" | "pause"> {
  line: LogLine;
  top: number;
  place: number;
  all: number;
  chosen: boolean;
}

function Line({ line, top, place, all, chosen, choose, pause }: LineProps) {
  const [shape, tone] = MARKS[line.level] ?? ["○", "idle"];
  const text = line.part === "requests" ? telling(line.text) : line.text;
  return (
    <div
      id={`line-${line.id}`} class={`log-line ${tone}`} role="option" aria-selected={chosen} aria-posinset={place} aria-setsize={all}
      style={{ top: `${top}px` }} onClick={() => { pause(); choose(line); }}
    >
      <time class="quiet" dateTime={new Date(line.when * 1000).toISOString()}>{clock(line.when)}</time>
      <span class={`mark ${tone}`}><span aria-hidden="true">{shape}</span> {line.level}</span>
      <span class="quiet part">{line.part || "server"}</span>
      <span class="text">{visible(text.length > SHOWN ? `${text.slice(0, SHOWN)}…` : text)}</span>
    </div>
  );
}

/** Return the line of a request, which begins with its result: a narrow row shows little more. */
function telling(text: string): string {
  return text.replace(/^request status=(\d+) method=(\S+) path=(\S+) seconds=(\S+)/, "$1 $2 $3 $4 s");
}

function clock(unixSeconds: number): string {
  const when = new Date(unixSeconds * 1000);
  return `${when.toLocaleTimeString("en-GB")}.${String(when.getMilliseconds()).padStart(3, "0")}`;
}
