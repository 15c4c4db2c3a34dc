/** The charts of the screen: which numbers of the history they show, with their units. */

import type { MetricsColumns, MetricsHistory } from "../../api/types.ts";
import { bytes, count, span } from "../../format/units.ts";

export interface Line {
  label: string;
  values: (number | null)[];
}

export interface Plot {
  title: string;
  lines: Line[];
  /** Return a value with its unit. */
  shown: (value: number) => string;
  /** The top of the axis at least. */
  top?: number;
  /** The numbers of the axis are powers of two. */
  binary?: boolean;
}

type Values = (number | null)[];
const MOST_LINES = 6;

/** Return the charts of all models, or of one. */
export function plots(history: MetricsHistory, model: string): Plot[] {
  const columns = model ? history.models[model] : history.total;
  if (!columns) return plotsOf(history, history.total, []).map((plot) => ({ ...plot, lines: [] }));
  const generated = model
    ? [{ label: model, values: rate(columns.generated_tokens, history.seconds) }]
    : busiest(history).map((name) => ({ label: name, values: rate(history.models[name]!.generated_tokens, history.seconds) }));
  return plotsOf(history, columns, generated);
}

function plotsOf(history: MetricsHistory, columns: MetricsColumns, generated: Line[]): Plot[] {
  const { seconds } = history;
  const computed = columns.prompt_tokens.map((all, index) => minus(all, columns.cached_tokens[index]));
  return [
    { title: "Generated tokens", lines: generated, shown: speed, top: 1 },
    {
      title: "Prompt tokens",
      lines: [{ label: "computed", values: rate(computed, seconds) }, { label: "from the cache", values: rate(columns.cached_tokens, seconds) }],
      shown: speed,
      top: 1,
    },
    {
      title: "Time to first token",
      lines: [{ label: "median", values: columns.first_token_p50 }, { label: "95 %", values: columns.first_token_p95 }],
      shown: span,
      top: 0.05,
    },
    {
      title: "Wait for a place",
      lines: [{ label: "median", values: columns.wait_p50 }, { label: "95 %", values: columns.wait_p95 }],
      shown: span,
      top: 0.01,
    },
    {
      title: "Requests at once",
      lines: [{ label: "running", values: columns.running }, { label: "waiting", values: columns.waiting }],
      shown: (value) => (Number.isInteger(value) ? count(value) : ""),
      top: 4,
    },
    {
      title: "Ended requests",
      lines: [
        { label: "ok", values: perMinute(columns.ok, seconds) },
        { label: "errors", values: perMinute(columns.errors, seconds) },
        { label: "cancelled", values: perMinute(columns.cancelled, seconds) },
      ],
      shown: (value) => `${short(value)}/min`,
      top: 4,
    },
    {
      title: "Cache",
      lines: [
        { label: "prompt tokens found", values: share(columns.cached_tokens, columns.prompt_tokens) },
        { label: "context in use", values: share(columns.cache_used, columns.cache_size) },
      ],
      shown: (value) => `${Math.round(value * 100)} %`,
      top: 1,
    },
    {
      title: "Memory",
      lines: [
        { label: "models", values: columns.memory },
        { label: "free main memory", values: history.available },
        ...Object.entries(history.devices).map(([name, values]) => ({ label: `models on ${name}`, values })),
      ],
      shown: bytes,
      top: 2 ** 20,
      binary: true,
    },
  ];
}

/** Return the models that generated most, by name, so that a colour stays with its model. */
function busiest(history: MetricsHistory): string[] {
  const all = Object.entries(history.whole.models).filter(([, one]) => one.generated_tokens > 0);
  return all.sort(([, one], [, other]) => other.generated_tokens - one.generated_tokens).slice(0, MOST_LINES).map(([name]) => name).sort();
}

/** Return a speed in tokens each second. */
export function speed(value: number): string {
  return `${short(value)} tok/s`;
}

/** Return a number with as many digits as it needs. */
export function short(value: number): string {
  return value >= 100 || Number.isInteger(value) ? count(Math.round(value)) : value.toFixed(1);
}

function rate(values: Values, seconds: number[]): Values {
  return values.map((value, index) => (value === null || !seconds[index] ? null : value / seconds[index]));
}

function perMinute(values: Values, seconds: number[]): Values {
  return rate(values, seconds).map((value) => (value === null ? null : value * 60));
}

function share(parts: Values, wholes: Values): Values {
  return parts.map((part, index) => (part === null || !wholes[index] ? null : part / wholes[index]));
}

function minus(all: number | null, part: number | null | undefined): number | null {
  return all === null ? null : all - (part ?? 0);
}
