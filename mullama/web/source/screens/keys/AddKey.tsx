/** The lines of the manifest for a new key. The page makes no secret: it would have to travel to the server. */

import { useState } from "preact/hooks";

import { CopyButton } from "../../parts/CopyButton.tsx";
import { Problem } from "../../parts/Problem.tsx";
import { propose } from "../../state/proposal.ts";

const ROLES = { infer: "use models", read: "see status, history and plans", files: "download model files by digest", admin: "everything" } as const;
type Role = keyof typeof ROLES;

/** Show the lines for a name, and the steps to put them in force. */
export function AddKey({ taken }: { taken: string[] }) {
  const [name, setName] = useState("");
  const [roles, setRoles] = useState<Role[]>(["infer"]);
  const [models, setModels] = useState("");
  const sample = taken.includes("team") ? "another-team" : "team";
  const shown = name.trim() || sample;
  const variable = `${shown.toUpperCase().replace(/[^A-Z0-9]+/g, "_").replace(/^(?=\d)/, "_")}_KEY`;
  const [error, setError] = useState<unknown>(null);
  const patterns = models.split(",").map((one) => one.trim()).filter(Boolean);
  const lines = text(shown, variable, roles, patterns);
  const add = () => {
    setError(null);
    const value = {
      secret: { from_env: variable },
      ...(roles.join() !== "infer" && { roles }),
      ...(patterns.length && { models: patterns }),
    };
    propose(["auth", "keys", shown], value).catch(setError);
  };
  return (
    <section class="panel" aria-labelledby="add-key-title">
      <header><h2 id="add-key-title">Add a key</h2></header>
      <div class="inside add-key">
        <div class="fields">
          <label class="field">
            <span>Name</span>
            <input class="input" value={name} placeholder={sample} onInput={(event) => setName(event.currentTarget.value)} />
          </label>
          <fieldset>
            <legend>Roles</legend>
            {(Object.entries(ROLES) as [Role, string][]).map(([role, meaning]) => (
              <label key={role}>
                <input type="checkbox" checked={roles.includes(role)} onChange={() => setRoles(roles.includes(role) ? roles.filter((one) => one !== role) : [...roles, role])} />{" "}
                {role} <span class="quiet">{meaning}</span>
              </label>
            ))}
          </fieldset>
          <label class="field">
            <span>Models and routes, with commas; all without one</span>
            <input class="input" value={models} placeholder="small, qwen3:*" onInput={(event) => setModels(event.currentTarget.value)} />
          </label>
        </div>
        <div>
          {taken.includes(shown) && <p class="notice">A key named {shown} is declared.</p>}
          {roles.length === 0 && <p class="notice">A key needs a role.</p>}
          <pre class="lines" aria-label="Lines of the manifest">{lines}</pre>
          <p class="actions">
            <button class="button main" disabled={!name.trim() || !roles.length || taken.includes(shown)} onClick={add}>Show the plan</button>
            <CopyButton text={() => lines} />
          </p>
          {error != null && <Problem title="The key was not added to the draft" error={error} />}
          <ol class="steps">
            <li>Make a secret, for example with <code>openssl rand -hex 24</code>.</li>
            <li>Set it as <code>{variable}</code> where the server starts; a file in <code>from_file</code> is read again at each reload.</li>
            <li>Apply the manifest with the lines. The first key closes the server to clients without one.</li>
          </ol>
        </div>
      </div>
    </section>
  );
}

function text(name: string, variable: string, roles: Role[], models: string[]): string {
  const lines = ["auth:", "  keys:", `    ${quoted(name)}:`, `      secret: {from_env: ${variable}}`];
  if (roles.length && roles.join() !== "infer") lines.push(`      roles: [${roles.join(", ")}]`);
  if (models.length) lines.push(`      models: [${models.map((one) => JSON.stringify(one)).join(", ")}]`);
  return lines.join("\n");
}

function quoted(name: string): string {
  return /^[A-Za-z_][\w.-]*$/.test(name) ? name : JSON.stringify(name);
}
