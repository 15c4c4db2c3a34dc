/** The contexts over the weights of a model, with what their memory holds: prefixes, conversations, checkpoints. */

import type { ModelContext, ModelDocument } from "../../api/types.ts";
import { bytes, count, counted, span } from "../../format/units.ts";
import { Bar } from "../../parts/Bar.tsx";
import { Empty } from "../../parts/Empty.tsx";
import { link } from "../../shell/router.ts";

const USES: Record<ModelContext["sequences"][number]["use"], string> = {
  request: "running request", prefix: "declared prefix", conversation: "conversation kept for its next turn",
};

/** One part for each context, the model's own first. */
export function Contexts({ document }: { document: ModelDocument }) {
  const { contexts, worker } = document;
  const read = worker ? worker.prompt_tokens + worker.cached_tokens : 0;
  return (
    <section class="panel" aria-labelledby="contexts-title">
      <header>
        <h2 id="contexts-title">Contexts and caches</h2>
        {worker && <span class="quiet">{counted(contexts.length, "context")} over {bytes(worker.weights_bytes)} of weights</span>}
      </header>
      {worker ? (
        <div class="inside">
          <p class="quiet">
            Since the load: {read ? `${count(worker.cached_tokens)} of ${count(read)} prompt tokens from the cache (${Math.round((100 * worker.cached_tokens) / read)} %), ` : ""}
            {count(worker.completion_tokens)} generated{worker.decode_seconds > 0 && ` in ${span(worker.decode_seconds)} of computing`}
          </p>
          {contexts.map((context, index) => <Context key={index} context={context} own={document.model.name} />)}
        </div>
      ) : <Empty title="Not loaded">Its contexts and caches exist while it is in memory.</Empty>}
    </section>
  );
}

function Context({ context, own }: { context: ModelContext; own: string }) {
  const { cells, used, checkpoints } = context;
  return (
    <article class="context">
      <h3>{context.models.map((name, index) => <>{index > 0 && ", "}{name === own ? name : <a href={link("models", name)}>{name}</a>}</>)} <span class="quiet">{context.state}</span></h3>
      <dl class="facts">
        <dt>Size</dt><dd>{count(context.size)} tokens, {counted(context.parallel, "request")} at once{context.pool > 0 && `, pool of ${count(context.pool)}`}</dd>
        {context.cache_bytes > 0 && <><dt>Memory</dt><dd>{bytes(context.cache_bytes)} cache, {bytes(context.compute_bytes)} compute{context.opened_in !== null && <span class="quiet">, opened in {span(context.opened_in)}</span>}</dd></>}
        {cells > 0 && <><dt>In use</dt><dd>{count(used)} of {count(cells)} cells<Bar value={used} whole={cells} label={`${count(used)} of ${count(cells)} cells in use`} /></dd></>}
        {context.prefix_tokens > 0 && <><dt>Prefix</dt><dd>{counted(context.prefix_tokens, "token")} declared{context.prefix_restored && ", restored from disk"}</dd></>}
        {checkpoints && <><dt>Checkpoints</dt><dd>{count(checkpoints.count)}, {bytes(checkpoints.bytes)} of {bytes(checkpoints.most_bytes)}; {counted(checkpoints.restored, "prompt")} began at one</dd></>}
      </dl>
      {context.sequences.length > 0 && (
        <table>
          <thead><tr><th scope="col">In the cache</th><th scope="col" class="number">Tokens</th></tr></thead>
          <tbody>{context.sequences.map((one, index) => <tr key={index}><td>{USES[one.use]}</td><td class="number">{count(one.tokens)}</td></tr>)}</tbody>
        </table>
      )}
    </article>
  );
}
