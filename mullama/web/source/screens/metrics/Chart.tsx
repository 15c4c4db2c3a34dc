/** One chart of the last minutes. All charts of the screen have the same times and one cursor. */

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";

import type { MetricsHistory } from "../../api/types.ts";
import { open } from "../../shell/router.ts";
import { look } from "../../shell/theme.ts";
import type { Plot } from "./charts.ts";

interface Props {
  plot: Plot;
  when: number[];
  /** The right end of the axis in Unix seconds. */
  until: number;
  seconds: number;
  marks: MetricsHistory["marks"];
}

const HEIGHT = 170;
const AXIS = 74;
const CURSOR = uPlot.sync("metrics");
const BINARY = Array.from({ length: 40 }, (_, power) => 2 ** power);
const DASHES = [[], [6, 3], [2, 3], [9, 3, 2, 3], [4, 2], [1, 2]];

/** Draw the lines of a plot; the legend shows the values at the cursor, else the newest. */
export function Chart(props: Props) {
  const place = useRef<HTMLDivElement>(null);
  const chart = useRef<uPlot | null>(null);
  const current = useRef(props);
  current.current = props;
  const { plot, when, until } = props;
  const names = plot.lines.map((line) => line.label).join("\n");
  const colours = look.value;

  useEffect(() => {
    const host = place.current!;
    if (!plot.lines.length) return;
    const made = new uPlot(options(host, current), data(current.current), host);
    chart.current = made;
    const observer = new ResizeObserver(() => made.setSize({ width: host.clientWidth, height: HEIGHT }));
    observer.observe(host);
    return () => {
      observer.disconnect();
      made.destroy();
      chart.current = null;
    };
  }, [plot.title, names, colours, props.seconds]);

  useEffect(() => chart.current?.setData(data(current.current)), [when, until, plot]);

  return (
    <section class="panel chart" aria-label={plot.title}>
      <header><h2>{plot.title}</h2></header>
      <div class="plot" ref={place} role="img" aria-label={words(plot)}>
        {!plot.lines.length && <p class="quiet nothing">nothing in this time</p>}
      </div>
    </section>
  );
}

/** Return the chart in words: the newest and the highest value of each line. */
function words(plot: Plot): string {
  const lines = plot.lines.map((line) => {
    const known = line.values.filter((value) => value !== null);
    return known.length ? `${line.label}: now ${plot.shown(known.at(-1)!)}, at most ${plot.shown(Math.max(...known))}` : `${line.label}: nothing`;
  });
  return `${plot.title}. ${lines.join("; ")}`;
}

function data({ when, plot }: Props): uPlot.AlignedData {
  return [when, ...plot.lines.map((line) => line.values)];
}

function options(host: HTMLElement, current: { current: Props }): uPlot.Options {
  const { plot } = current.current;
  const text = colour(host, "--text-quiet");
  const grid = { stroke: colour(host, "--line"), width: 1 };
  const font = `11px ${getComputedStyle(host).fontFamily}`;
  return {
    width: host.clientWidth,
    height: HEIGHT,
    cursor: { sync: { key: CURSOR.key }, drag: { x: false, y: false }, points: { size: 6 } },
    legend: { live: true },
    scales: {
      x: { range: () => [current.current.until - current.current.seconds, current.current.until] },
      y: { range: (_, __, most) => [0, Math.max(plot.top ?? 0, (most ?? 0) * 1.1)] },
    },
    axes: [
      { stroke: text, grid, ticks: { show: false }, font, size: 22, space: 70, values: (_, ticks) => ticks.map((tick) => clock(tick)) },
      { stroke: text, grid, ticks: { show: false }, font, size: AXIS, space: 34, ...(plot.binary && { incrs: BINARY }), values: (_, ticks) => ticks.map(plot.shown) },
    ],
    series: [
      { value: (_, when) => clock(when ?? current.current.when.at(-1) ?? 0, true) },
      ...plot.lines.map((line, place) => ({
        label: line.label,
        stroke: colour(host, `--series-${place + 1}`),
        width: 1.5,
        dash: DASHES[place]!,
        points: { size: 4 },
        value: (chart: uPlot, value: number | null, series: number, index: number | null) => {
          const shown = index === null ? newest(chart.data[series]!) : value;
          return shown == null ? "–" : plot.shown(shown);
        },
      })),
    ],
    hooks: { draw: [(chart) => drawMarks(chart, host, current.current.marks)] },
  };
}

function newest(values: ArrayLike<number | null | undefined>): number | null | undefined {
  return values[values.length - 1];
}

/** Draw a line at each change of the manifest, with a link to the history on top: refused ones are dashed. */
function drawMarks(chart: uPlot, host: HTMLElement, marks: MetricsHistory["marks"]): void {
  const { ctx, bbox } = chart;
  for (const old of chart.over.querySelectorAll(".reload-mark")) old.remove();
  for (const mark of marks) {
    const left = chart.valToPos(mark.when, "x");
    if (left < 0 || left > chart.over.clientWidth) continue;
    const applied = mark.kind === "applied";
    const x = Math.round(chart.valToPos(mark.when, "x", true));
    ctx.save();
    ctx.strokeStyle = colour(host, applied ? "--text-quiet" : "--bad");
    ctx.lineWidth = devicePixelRatio;
    ctx.setLineDash(applied ? [] : [4 * devicePixelRatio, 3 * devicePixelRatio]);
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.restore();
    const spot = document.createElement("span");
    spot.className = applied ? "reload-mark" : "reload-mark refused";
    spot.title = `${mark.kind.replaceAll("-", " ")}${applied ? `: revision ${mark.generation}` : ""}\n${mark.message}`;
    // No link: the chart is a picture, and the list below the charts has the links for the keyboard.
    spot.addEventListener("click", () => open("history", ...(applied ? [String(mark.generation)] : [])));
    spot.style.left = `${left}px`;
    chart.over.append(spot);
  }
}

/** Return the value of a token as a colour that a canvas understands. */
function colour(host: HTMLElement, token: string): string {
  const probe = document.createElement("span");
  probe.style.color = `var(${token})`;
  host.append(probe);
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}

function clock(unixSeconds: number, exact = false): string {
  const form: Intl.DateTimeFormatOptions = { hour: "2-digit", minute: "2-digit", ...(exact && { second: "2-digit" }) };
  return new Date(unixSeconds * 1000).toLocaleTimeString("en-GB", form);
}
