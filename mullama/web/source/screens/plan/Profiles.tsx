/** The choice of the manifest's profiles. */

interface Props {
  known: string[];
  chosen: string[];
  /** Those that the server follows. */
  followed: string[];
  choose: (profiles: string[]) => void;
}

/** One box a profile. They are merged in the order in which they were chosen. */
export function Profiles({ known, chosen, followed, choose }: Props) {
  if (!known.length) return null;
  return (
    <fieldset class="profiles">
      <legend>Profiles</legend>
      {known.map((name) => (
        <label key={name}>
          <input
            type="checkbox"
            checked={chosen.includes(name)}
            onChange={(event) => choose(event.currentTarget.checked ? [...chosen, name] : chosen.filter((one) => one !== name))}
          />{" "}
          {name}
          {chosen.length > 1 && chosen.includes(name) && <span class="quiet"> {chosen.indexOf(name) + 1}.</span>}
          {followed.includes(name) && <span class="quiet"> (applied)</span>}
        </label>
      ))}
    </fieldset>
  );
}
