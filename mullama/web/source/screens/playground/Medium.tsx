/** A picture or a sound of a message. */

import type { Medium as Kept } from "../../state/conversations.ts";

/** Show it from its bytes, without a request. */
export function Medium({ medium }: { medium: Kept }) {
  const address = `data:${medium.type};base64,${medium.data}`;
  return medium.type.startsWith("image/") ? <img src={address} alt="attached picture" /> : <audio controls src={address} />;
}
