/** The text of the followed manifest, the draft over it, and its plan. */

import { useEffect, useRef, useState } from "preact/hooks";

import { ask, key } from "../../api/client.ts";
import type { ManifestText, TextPlan } from "../../api/types.ts";
import { connection, status } from "../../state/live.ts";
import { type Draft, keep, kept } from "./draft.ts";

const PAUSE = 400; // milliseconds without a key before the text is planned

/** A result, with the text and the profiles that were sent for it, and the state that they were compared with. */
interface Planned {
  result: TextPlan;
  text: string;
  profiles: string;
  against: string;
}

/** The values that the screen shows, and their changes. */
export interface ManifestState {
  /** The newest read of the file; null before the first. */
  file: ManifestText | null;
  text: string;
  /** The number of times that the text was replaced by other means than writing. */
  version: number;
  /** The digest of the file that the text was begun on. */
  base: string;
  edited: boolean;
  /** True for an edited text whose file was changed by others since. */
  stale: boolean;
  chosen: string[];
  known: string[];
  result: TextPlan | null;
  /** True for a result that belongs to the text, the profiles and the revision as they are now. */
  current: boolean;
  readError: unknown;
  planError: unknown;
  write: (text: string) => void;
  choose: (profiles: string[]) => void;
  /** Take the text of the file. */
  discard: () => void;
  /** Keep the text, as a change of the file as it is now. */
  rebase: () => void;
  /** State that this text is sent to be saved: a file with it was not changed by others. */
  sent: (text: string) => void;
  /** Read the file again after it was saved here, or could not be. */
  reread: (applied: boolean) => Promise<void>;
}

/** The newest read of the file in this tab, so that the text can be read and written while the server is away. */
let newest: { file: ManifestText; key: string } | null = null;

/** Read the file, follow its changes, and plan the text while it is written. */
export function useManifest(): ManifestState {
  const [file, setFile] = useState<ManifestText | null>(() => (newest?.key === key.value ? newest.file : null));
  const [draft, setDraft] = useState<Draft>(() => (file ? kept(file.path) ?? file : { text: "", digest: "" }));
  const [version, setVersion] = useState(0);
  const [profiles, setProfiles] = useState<string[] | null>(null);
  const [known, setKnown] = useState<string[]>([]);
  const [planned, setPlanned] = useState<Planned | null>(null);
  const [readError, setReadError] = useState<unknown>(null);
  const [planError, setPlanError] = useState<unknown>(null);
  const now = useRef({ file, draft });
  now.current = { file, draft };
  const saved = useRef<string | null>(null);

  const take = (found: ManifestText) => {
    const { file: before, draft: mine } = now.current;
    const untouched = before !== null && mine.text === before.text;
    const stored = before === null ? kept(found.path) : null;
    newest = { file: found, key: key.value };
    setFile(found);
    setReadError(null);
    if (stored && stored.text !== found.text) replace(stored);
    else if (before === null || untouched || mine.text === found.text) replace({ text: found.text, digest: found.digest });
    // A text that was written while the save ran is a change of the saved file.
    else if (found.text === saved.current && found.digest !== before.digest) replace({ text: mine.text, digest: found.digest });
  };
  const replace = (wanted: Draft) => {
    if (wanted.text !== now.current.draft.text) setVersion((number) => number + 1);
    setDraft(wanted);
  };
  const read = () => ask<ManifestText>("api/v1/manifest").then(take, setReadError);

  // The file may have changed whenever the state of the server does, and while this tab was not looked at.
  const { revision, conditions } = status.value ?? { revision: "", conditions: [] };
  const changes = conditions.filter((one) => one.type === "ConfigValid" || one.type === "Synced").map((one) => `${one.since} ${one.message}`).join();
  const online = connection.value === "live";
  useEffect(() => void (online && read()), [revision, changes, key.value, online]);
  useEffect(() => {
    const look = () => void read();
    window.addEventListener("focus", look);
    return () => window.removeEventListener("focus", look);
  }, []);

  // A save makes a revision, and the live state names it later: a plan against the one before would be refused.
  const [saves, setSaves] = useState(0);
  const against = `${revision} ${saves}`;

  const edited = file !== null && draft.text !== file.text;
  useEffect(() => {
    if (file) keep(file.path, edited ? draft : null);
  }, [edited, draft, file]);

  const chosen = profiles ?? file?.profiles ?? [];
  const turn = useRef(0);
  useEffect(() => {
    if (!file || !online) return;
    const mine = (turn.current += 1);
    const timer = setTimeout(() => {
      ask<TextPlan>("api/v1/manifest/plan", { method: "POST", body: JSON.stringify({ text: draft.text, profiles: chosen }) }).then(
        (found) => {
          if (mine !== turn.current) return;
          setPlanned({ result: found, text: draft.text, profiles: chosen.join(), against });
          setPlanError(null);
          if (found.plan) setKnown(found.profiles);
        },
        (failure) => { if (mine === turn.current) setPlanError(failure); },
      );
    }, PAUSE);
    return () => clearTimeout(timer);
  }, [file?.digest, draft.text, chosen.join(), against, changes, key.value, online]);

  return {
    file,
    text: draft.text,
    version,
    base: draft.digest,
    edited,
    stale: edited && draft.digest !== file.digest,
    chosen,
    known: [...new Set([...known, ...chosen])],
    result: planned?.result ?? null,
    current: planned?.text === draft.text && planned.profiles === chosen.join() && planned.against === against,
    readError,
    planError,
    write: (text) => setDraft((before) => ({ ...before, text })),
    choose: setProfiles,
    discard: () => file && replace({ text: file.text, digest: file.digest }),
    rebase: () => file && setDraft((before) => ({ ...before, digest: file.digest })),
    sent: (text) => { saved.current = text; },
    reread: async (applied) => {
      setSaves((number) => number + 1);
      if (applied) setProfiles(null);
      await read();
    },
  };
}
