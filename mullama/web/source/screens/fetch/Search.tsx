/** The search of the hub. */

import { useEffect, useState } from "preact/hooks";

import { ask, key } from "../../api/client.ts";
import type { HubResult } from "../../api/types.ts";
import { count, counted } from "../../format/units.ts";
import { Empty } from "../../parts/Empty.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { link, open } from "../../shell/router.ts";

const REPOSITORY = /^(hf:)?[\w.-]+\/[\w.-]+$/;

/** Show the repositories that match the words of the address. */
export function Search({ words }: { words: string }) {
  const [text, setText] = useState(words);
  const [results, setResults] = useState<HubResult[] | null>(null);
  const [error, setError] = useState<unknown>(null);
  const [turn, setTurn] = useState(0);
  useEffect(() => setText(words), [words]);
  useEffect(() => {
    setResults(null);
    setError(null);
    if (!words) return;
    const stop = new AbortController();
    ask<{ results: HubResult[] }>(`api/v1/hub/search?${new URLSearchParams({ query: words, limit: "50" })}`, { signal: stop.signal }).then(
      (found) => setResults(found.results),
      (failure) => { if (!stop.signal.aborted) setError(failure); },
    );
    return () => stop.abort();
  }, [words, turn, key.value]);
  const submit = (event: Event) => {
    event.preventDefault();
    const wanted = text.trim();
    if (REPOSITORY.test(wanted)) open("fetch", "repository", ...wanted.replace(/^hf:/, "").split("/"));
    else if (wanted === words) setTurn(turn + 1);
    else if (wanted) open("fetch", "search", wanted);
  };
  const busy = words !== "" && !results && error == null;
  return (
    <div class="screen">
      <header><h1>Fetch models</h1><p class="quiet">The server searches the hub of its manifest. Nothing is downloaded before an apply.</p></header>
      <form class="hub-search" role="search" onSubmit={submit}>
        <label class="field"><span>Words, or a repository such as org/name</span>
          <input class="input" type="search" value={text} maxLength={200} onInput={(event) => setText(event.currentTarget.value)} />
        </label>
        <button class="button main" disabled={!text.trim() || busy}>{busy ? "Searching…" : "Search"}</button>
      </form>
      {error != null && (
        <>
          <Problem title="The hub could not be searched" error={error} />
          <p class="quiet">
            A mirror is declared as <code>sources.hf.endpoint</code> in the manifest. Files on this machine need no hub: see <code>mullama list</code>.
          </p>
        </>
      )}
      {(results || !words) && (
        <section class="panel" aria-label="Repositories">
          {results?.length ? <Results results={results} /> : (
            <Empty title={words ? "No repository with GGUF files matches" : "Find a model"}>
              {words ? "Try fewer words, or the name of the organization." : "Search for a name such as qwen3, or open a repository by its name."}
            </Empty>
          )}
        </section>
      )}
    </div>
  );
}

function Results({ results }: { results: HubResult[] }) {
  return (
    <div class="scroll">
      <table class="stacked">
        <caption class="visually-hidden">{counted(results.length, "result")}</caption>
        <thead>
          <tr>
            <th scope="col">Repository</th><th scope="col">Task</th><th scope="col">License</th><th scope="col" class="number">Downloads</th>
            <th scope="col" class="number">Likes</th><th scope="col" class="number">Updated</th>
          </tr>
        </thead>
        <tbody>
          {results.map((one) => (
            <tr key={one.repository}>
              <th scope="row" class="model repository">
                <a href={link("fetch", "repository", ...one.repository.split("/"))}>{one.repository}</a>
                {one.gated && <span class="tag">gated</span>}
              </th>
              <td data-label="Task">{one.task || "–"}</td>
              <td data-label="License">{one.license || "–"}</td>
              <td class="number" data-label="Downloads">{count(one.downloads)}</td>
              <td class="number" data-label="Likes">{count(one.likes)}</td>
              <td class="number" data-label="Updated">{one.updated.slice(0, 10) || "–"}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
