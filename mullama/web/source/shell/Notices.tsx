/** The notices of every screen: a lost connection, a key that is not accepted any more. */

import { keyEntered, keyWanted } from "../api/client.ts";
import { moment } from "../format/units.ts";
import { outdated } from "../state/pageVersion.ts";
import { connection, heard, retry, status } from "../state/live.ts";

/** The notices, above the screen. */
export function Notices() {
  if (!status.value) return null;
  if (keyWanted.value) {
    return (
      <div class="notice above" role="alert">
        <p><strong>The server does not accept the key of this tab any more.</strong> What is written here stays.</p>
        <p class="actions"><button class="button" onClick={() => (keyEntered.value = true)}>Enter a key</button></p>
      </div>
    );
  }
  if (connection.value !== "lost") return outdated.value ? <Outdated /> : null;
  return (
    <div class="notice above" role="alert">
      <p><strong>The connection to the server is lost.</strong> The page shows the state at {moment(heard.value / 1000)} and tries again by itself. What is written here stays.</p>
      <p class="actions"><button class="button" onClick={retry}>Try now</button></p>
    </div>
  );
}

function Outdated() {
  return (
    <div class="notice above" role="status">
      <p><strong>The server was updated.</strong> This page is of the version before. Drafts are kept when it is loaded again.</p>
      <p class="actions"><button class="button" onClick={() => window.location.reload()}>Load the page again</button></p>
    </div>
  );
}
