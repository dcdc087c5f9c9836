/**
 * Checks a value against the part of JSON Schema that tools use: types, enum, const, properties, required,
 * additionalProperties: false, items, anyOf, oneOf and allOf. Keywords beyond these are not looked at, so what passes
 * here may still be refused by the tool itself.
 */

/** What is wrong, as a sentence for the model that wrote it; undefined when nothing is. Pure. */
export function schemaProblem(schema: unknown, value: unknown, at = "arguments"): string | undefined {
  if (!isRecord(schema)) return schema === false ? `${at} must not be given` : undefined;
  return (
    typeProblem(schema, value, at) ??
    choiceProblem(schema, value, at) ??
    objectProblem(schema, value, at) ??
    itemsProblem(schema, value, at) ??
    unionProblem(schema, value, at)
  );
}

type Schema = Readonly<Record<string, unknown>>;

function typeProblem({ type }: Schema, value: unknown, at: string): string | undefined {
  const types = (Array.isArray(type) ? type : [type]).filter((each) => typeof each === "string");
  if (types.length === 0 || types.some((each) => isOfType(value, each))) return undefined;
  return `${at} must be ${types.join(" or ")}`;
}

function isOfType(value: unknown, type: string): boolean {
  switch (type) {
    case "object":
      return isRecord(value);
    case "array":
      return Array.isArray(value);
    case "integer":
      return typeof value === "number" && Number.isInteger(value);
    case "null":
      return value === null;
    default:
      return typeof value === type;
  }
}

function choiceProblem(schema: Schema, value: unknown, at: string): string | undefined {
  const choices: unknown = "const" in schema ? [schema["const"]] : schema["enum"];
  if (!Array.isArray(choices)) return undefined;
  const texts = choices.map((choice) => JSON.stringify(choice));
  return texts.includes(JSON.stringify(value)) ? undefined : `${at} must be one of ${texts.join(", ")}`;
}

function objectProblem(schema: Schema, value: unknown, at: string): string | undefined {
  if (!isRecord(value)) return undefined;
  const missing = listOf(schema["required"]).find((name) => typeof name === "string" && !(name in value));
  if (typeof missing === "string") return `${at}.${missing} is missing`;
  const properties = isRecord(schema["properties"]) ? schema["properties"] : {};
  for (const [name, inner] of Object.entries(value)) {
    if (name in properties) {
      const problem = schemaProblem(properties[name], inner, `${at}.${name}`);
      if (problem !== undefined) return problem;
    } else if (schema["additionalProperties"] === false) return `${at}.${name} is not known`;
  }
  return undefined;
}

function itemsProblem({ items }: Schema, value: unknown, at: string): string | undefined {
  if (!Array.isArray(value) || items === undefined) return undefined;
  for (const [index, inner] of value.entries()) {
    const problem = schemaProblem(items, inner, `${at}[${index}]`);
    if (problem !== undefined) return problem;
  }
  return undefined;
}

function unionProblem(schema: Schema, value: unknown, at: string): string | undefined {
  for (const all of listOf(schema["allOf"])) {
    const problem = schemaProblem(all, value, at);
    if (problem !== undefined) return problem;
  }
  const [first, ...others] = [...listOf(schema["anyOf"]), ...listOf(schema["oneOf"])];
  if (first === undefined) return undefined;
  const problem = schemaProblem(first, value, at);
  return problem === undefined || others.some((other) => schemaProblem(other, value, at) === undefined)
    ? undefined
    : problem;
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function isRecord(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
