/** Identifiers that no other thing has. */

/** Return 32 hexadecimal digits of chance. `crypto.randomUUID` exists on pages with TLS and of this machine alone. */
export function identifier(): string {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
