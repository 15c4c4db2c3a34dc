/** Streams of the server, read from a response, because an EventSource cannot send a key. */

import { ApiError, send } from "./client.ts";

/** Yield the lines of a response as they arrive. */
async function* lines(response: Response): AsyncGenerator<string> {
  const reader = response.body!.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { done, value } = await read(reader);
      if (done) break;
      const parts = (rest + value).split("\n");
      rest = parts.pop()!;
      yield* parts;
    }
    if (rest) yield rest;
  } finally {
    reader.cancel().catch(() => {});
  }
}

async function read(reader: ReadableStreamDefaultReader<string>): Promise<ReadableStreamReadResult<string>> {
  try {
    return await reader.read();
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError(0, "unreachable", "the connection to the server ended", "is it running? `mullama status` shows it");
  }
}

/** Yield the values of a response whose lines are JSON. */
export async function* jsonLines<Line>(path: string, init?: RequestInit): AsyncGenerator<Line> {
  for await (const line of lines(await send(path, init))) if (line) yield JSON.parse(line) as Line;
}

/** Yield the data of each server-sent event; comments and names are left out. opened: called when the server accepts. */
export async function* serverEvents(path: string, init?: RequestInit, opened?: () => void): AsyncGenerator<string> {
  let data: string[] = [];
  const response = await send(path, init);
  opened?.();
  for await (const raw of lines(response)) {
    const line = raw.replace(/\r$/, "");
    if (line === "") {
      if (data.length) yield data.join("\n");
      data = [];
    } else if (line.startsWith("data:")) {
      data.push(line.slice(line[5] === " " ? 6 : 5));
    }
  }
}
