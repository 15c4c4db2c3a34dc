/** The fields and values that the JSON Schema of the manifest allows at a path. */

/** The parts of a JSON Schema that the manifest's uses. */
export interface Schema {
  $ref?: string;
  anyOf?: Schema[];
  oneOf?: Schema[];
  allOf?: Schema[];
  type?: string | string[];
  properties?: Record<string, Schema>;
  patternProperties?: Record<string, Schema>;
  additionalProperties?: Schema | boolean;
  items?: Schema;
  enum?: unknown[];
  const?: unknown;
  default?: unknown;
  examples?: unknown[];
  description?: string;
  definitions?: Record<string, Schema>;
  "x-mullama-cost"?: string;
  "x-mullama-unit"?: string;
}

/** A step of a path: a key of a map, or `null` for an item of a list. */
export type Path = (string | null)[];

/** Return the alternatives of a schema, with references followed. */
export function alternatives(schema: Schema, root: Schema): Schema[] {
  if (schema.$ref) {
    const found = root.definitions?.[schema.$ref.replace("#/definitions/", "")];
    return found ? alternatives(found, root) : [];
  }
  const parts = schema.anyOf ?? schema.oneOf ?? schema.allOf;
  if (!parts) return [schema];
  const nested = parts.flatMap((part) => alternatives(part, root));
  return schema.properties ? [schema, ...nested] : nested;
}

/** Return the schemas at a path: of the field itself, before its alternatives. */
export function at(path: Path, root: Schema): Schema[] {
  return path.reduce<Schema[]>((found, step) => found.flatMap((one) => inside(one, step, root)), [root]);
}

function inside(schema: Schema, step: string | null, root: Schema): Schema[] {
  return alternatives(schema, root).flatMap((one) => {
    if (step === null) return one.items ? [one.items] : [];
    const known = one.properties?.[step];
    if (known) return [known];
    return typeof one.additionalProperties === "object" ? [one.additionalProperties] : [];
  });
}

/** Return the fields of the map at a path. */
export function fields(path: Path, root: Schema): Map<string, Schema> {
  const found = new Map<string, Schema>();
  for (const one of at(path, root).flatMap((schema) => alternatives(schema, root))) {
    for (const [name, field] of Object.entries(one.properties ?? {})) if (!found.has(name)) found.set(name, field);
  }
  return found;
}

/** A value that may be written at a path. */
export interface Value {
  text: string;
  note: string;
}

/** Return the values of a field: its words, its default and its examples. */
export function values(path: Path, root: Schema): Value[] {
  const found = new Map<string, string>();
  const note = (value: unknown, text: string) => {
    if (value !== null && typeof value !== "object" && !found.get(String(value))) found.set(String(value), text);
  };
  for (const field of at(path, root)) {
    note(field.default, "default");
    for (const one of alternatives(field, root)) {
      note(one.default, "default");
      if (one.const !== undefined) note(one.const, "");
      for (const value of one.enum ?? []) note(value, "");
      if (one.type === "boolean") ["true", "false"].forEach((word) => note(word, ""));
      for (const value of one.examples ?? []) note(value, "example");
    }
    for (const value of field.examples ?? []) note(value, "example");
  }
  found.delete("undefined");
  return [...found].map(([text, word]) => ({ text, note: word }));
}

/** True if a map may stand at the path, so that its fields come on the next line. */
export function holdsMap(field: Schema, root: Schema): boolean {
  const found = alternatives(field, root);
  return found.some((one) => one.type === "object" || one.properties) && !found.some((one) => one.enum);
}

/** Return what a field takes in a few words, such as `true or false`. */
export function kind(field: Schema, root: Schema): string {
  const words = alternatives(field, root).flatMap((one) => {
    if (one.enum) return one.enum.map(String);
    if (one.const !== undefined) return [String(one.const)];
    if (one["x-mullama-unit"] === "seconds") return ["duration"];
    if (one["x-mullama-unit"] === "bytes") return ["size"];
    const type = Array.isArray(one.type) ? one.type[0] : one.type;
    if (type === "boolean") return ["true", "false"];
    if (type === "object") return ["map"];
    if (type === "array") return ["list"];
    if (type === "integer" || type === "number") return ["number"];
    return type === "string" && !(one as { pattern?: string }).pattern?.includes("\\$\\{") ? ["text"] : [];
  });
  return [...new Set(words)].join(" | ");
}
