/**
 * The functions that an answer may call → rules that its tokens follow. Pure.
 *
 * What of JSON Schema is held to: types, properties, required, additionalProperties, items, the number of items, enum,
 * const, anyOf, oneOf, allOf of objects, and references within the schema. Objects that name properties have no others
 * unless their schema says so, as a model invents some else. Bounds, patterns and formats are left to the function.
 */

import type { CallRules, PropertyRule, ValueRule } from "../native/addon";
import type { ToolUse } from "../protocol";

/** A call is written `{"name": ..., "arguments": ...}` between the marks. */
export function toolGrammar({ open, close, required, functions }: ToolUse): CallRules {
  const values = new Values();
  const distinct = new Map(functions.map((each) => [each.name, each]));
  const calls = [...distinct.values()].map(({ name, schema }) => ({
    begin: `{"name": ${JSON.stringify(name)}, "arguments": `,
    arguments: values.argumentsOf(schema),
    end: "}",
  }));
  return { values: values.all, open, close, calls, required };
}

type Schema = Readonly<Record<string, unknown>>;

/** What native code takes; an object of more is any object. */
const propertiesMax = 64;
/** After a look at so many schemas whatever another says stands for any JSON, so that none can take all time and memory. */
const looksMax = 20_000;
const levelsMax = 24;

/** Values of all functions. One value may name another that is still being made, as schemas refer to themselves. */
class Values {
  readonly #all: ValueRule[] = [];
  /** By schema, so that what is referred to twice is made once. */
  #known = new Map<object, number>();
  #root: unknown;
  #any: number | undefined;
  #looks = 0;

  get all(): readonly ValueRule[] {
    return this.#all;
  }

  argumentsOf(schema: unknown): number {
    this.#root = schema;
    this.#known = new Map();
    const made = this.#value(schema, 0);
    // Arguments are an object, whatever their schema forgets to say.
    const rule = this.#all[made];
    if (rule?.kind === "object") return made;
    const objects = rule?.kind === "anyOf" ? rule.values.filter((index) => this.#all[index]?.kind === "object") : [];
    const [only] = objects;
    if (objects.length === 1 && only !== undefined) return only;
    if (objects.length > 0) return this.#add({ kind: "anyOf", values: objects });
    return this.#add({ kind: "object", properties: [], rest: this.#anything() });
  }

  #value(schema: unknown, level: number): number {
    if (!isRecord(schema)) return this.#anything();
    const known = this.#known.get(schema);
    if (known !== undefined) return known;
    // Taken first, so that a schema within may name it.
    const index = this.#add({ kind: "anyOf", values: [] });
    this.#known.set(schema, index);
    const rule = this.#rule(schema, level);
    this.#all[index] = rule ?? this.#anyRule();
    return index;
  }

  #add(rule: ValueRule): number {
    return this.#all.push(rule) - 1;
  }

  /** Undefined for anything. */
  #rule(schema: Schema, level: number): ValueRule | undefined {
    this.#looks += 1;
    if (level > levelsMax || this.#looks > looksMax) return undefined;
    const choices = "const" in schema ? [schema["const"]] : schema["enum"];
    if (Array.isArray(choices) && choices.length > 0) return text(choices);
    const merged = this.#merged(this.#followed(schema));
    if (merged === undefined) return undefined;
    if (merged !== schema && ("const" in merged || "enum" in merged)) return this.#rule(merged, level + 1);
    const types = typesOf(merged);
    if (types.length > 0) return this.#alternatives(types.map((type) => this.#typed(merged, type, level)));
    const alternatives = [...listOf(merged["anyOf"]), ...listOf(merged["oneOf"])];
    if (alternatives.length === 0) return undefined;
    return this.#alternatives(alternatives.map((each) => (isRecord(each) ? this.#rule(each, level + 1) : undefined)));
  }

  /** The schema that references lead to; of one that leads nowhere, nothing is known. */
  #followed(schema: Schema): Schema {
    let followed = schema;
    for (let hop = 0; hop < levelsMax; hop++) {
      const reference = followed["$ref"];
      if (typeof reference !== "string") return followed;
      const target = pointed(this.#root, reference);
      if (!isRecord(target)) return {};
      followed = target;
    }
    return {};
  }

  /** The parts of an `allOf` as one schema, as they are about objects; undefined when they cannot be one. */
  #merged(schema: Schema): Schema | undefined {
    const parts = listOf(schema["allOf"]).map((part) => (isRecord(part) ? this.#followed(part) : part));
    return parts.reduce<Schema | undefined>((merged, part) => {
      if (merged === undefined || !isRecord(part) || "allOf" in part) return undefined;
      return {
        ...merged,
        ...part,
        properties: { ...asRecord(merged["properties"]), ...asRecord(part["properties"]) },
        required: [...listOf(merged["required"]), ...listOf(part["required"])],
      };
    }, schema);
  }

  /** One rule of several; anything when one of them is. */
  #alternatives(rules: readonly (ValueRule | undefined)[]): ValueRule | undefined {
    if (rules.some((rule) => rule === undefined)) return undefined;
    const flat = rules.filter((rule) => rule !== undefined).flatMap((rule) => this.#members(rule));
    const [first] = flat;
    if (flat.length === 1 && first !== undefined) return this.#all[first];
    return { kind: "anyOf", values: [...new Set(flat)] };
  }

  #members(rule: ValueRule): readonly number[] {
    return rule.kind === "anyOf" ? rule.values : [this.#add(rule)];
  }

  #typed(schema: Schema, type: string, level: number): ValueRule | undefined {
    switch (type) {
      case "object":
        return this.#object(schema, level);
      case "array":
        return this.#array(schema, level);
      case "string":
      case "number":
      case "integer":
        return { kind: type };
      case "boolean":
        return { kind: "text", texts: ["true", "false"] };
      case "null":
        return { kind: "text", texts: ["null"] };
      default:
        return undefined;
    }
  }

  #object(schema: Schema, level: number): ValueRule {
    const named = Object.entries(asRecord(schema["properties"])).filter(([, inner]) => inner !== false);
    const required = new Set(listOf(schema["required"]).filter((name) => typeof name === "string"));
    const others = schema["additionalProperties"];
    const isOpen =
      others === true ||
      isRecord(others) ||
      isRecord(schema["patternProperties"]) ||
      (others === undefined && named.length === 0);
    const rest = isOpen ? this.#value(others, level + 1) : undefined;
    const unnamed = [...required].filter((name) => !named.some(([known]) => known === name));
    if (named.length + unnamed.length > propertiesMax)
      return { kind: "object", properties: [], rest: this.#anything() };
    const properties: readonly PropertyRule[] = [
      ...named.map(([name, inner]) => ({
        key: keyText(name),
        value: this.#value(inner, level + 1),
        required: required.has(name),
      })),
      ...unnamed.map((name) => ({ key: keyText(name), value: rest ?? this.#anything(), required: true })),
    ];
    return { kind: "object", properties, ...(rest === undefined ? {} : { rest }) };
  }

  #array(schema: Schema, level: number): ValueRule {
    const min = countOf(schema["minItems"]) ?? 0;
    const max = countOf(schema["maxItems"]);
    const items = this.#value(schema["items"], level + 1);
    return { kind: "array", items, min, ...(max === undefined || max < min ? {} : { max }) };
  }

  #anything(): number {
    if (this.#any === undefined) {
      this.#any = this.#add({ kind: "anyOf", values: [] });
      this.#all[this.#any] = {
        kind: "anyOf",
        values: [
          this.#add({ kind: "object", properties: [], rest: this.#any }),
          this.#add({ kind: "array", items: this.#any, min: 0 }),
          this.#add({ kind: "string" }),
          this.#add({ kind: "number" }),
          this.#add({ kind: "text", texts: ["true", "false", "null"] }),
        ],
      };
    }
    return this.#any;
  }

  #anyRule(): ValueRule {
    const rule = this.#all[this.#anything()];
    return rule ?? { kind: "string" };
  }
}

/** Keywords from which a schema's type follows, for those who leave it out. */
function typesOf(schema: Schema): readonly string[] {
  const { type } = schema;
  const types = (Array.isArray(type) ? type : [type]).filter((each) => typeof each === "string");
  if (types.length > 0) return types;
  if (isRecord(schema["properties"])) return ["object"];
  return isRecord(schema["items"]) ? ["array"] : [];
}

/** What a reference such as `#/$defs/Point` leads to. */
function pointed(root: unknown, reference: string): unknown {
  if (!reference.startsWith("#")) return undefined;
  const steps = reference.slice(1).split("/").slice(1);
  return steps.reduce<unknown>((at, step) => {
    const key = step.replaceAll("~1", "/").replaceAll("~0", "~");
    if (Array.isArray(at)) return at[Number(key)];
    return isRecord(at) && Object.hasOwn(at, key) ? at[key] : undefined;
  }, root);
}

function text(values: readonly unknown[]): ValueRule {
  return { kind: "text", texts: [...new Set(values.map((value) => JSON.stringify(value)))] };
}

function keyText(name: string): string {
  return JSON.stringify(name).slice(1, -1);
}

function countOf(value: unknown): number | undefined {
  return typeof value === "number" && Number.isInteger(value) && value >= 0 && value < 1e6 ? value : undefined;
}

function listOf(value: unknown): readonly unknown[] {
  return Array.isArray(value) ? value : [];
}

function asRecord(value: unknown): Schema {
  return isRecord(value) ? value : {};
}

function isRecord(value: unknown): value is Schema {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
