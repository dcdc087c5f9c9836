// Writes the table of settings in README.md from package.json and package.nls.json.
//
//   node scripts/settings-docs.mjs           rewrites the table
//   node scripts/settings-docs.mjs --check   fails when it is not up to date
import { readFileSync, writeFileSync } from "node:fs";
import { inRoot } from "./lib/paths.mjs";

const begin = "<!-- settings: written by scripts/settings-docs.mjs -->";
const end = "<!-- /settings -->";

/** README's text with a fresh table. */
export function withSettings(readme, manifest, strings) {
  const from = readme.indexOf(begin);
  const to = readme.indexOf(end);
  if (from < 0 || to < from) throw new Error("README.md has no place for the table of settings.");
  return `${readme.slice(0, from + begin.length)}\n\n${table(manifest, strings)}\n\n${readme.slice(to)}`;
}

function table(manifest, strings) {
  const rows = Object.entries(manifest.contributes.configuration.properties)
    .sort(([, a], [, b]) => a.order - b.order)
    .map(([name, setting]) => {
      const text = setting.markdownDescription.replace(/^%(.*)%$/, (_, key) => strings[key]);
      return `| \`${name}\` | \`${JSON.stringify(setting.default)}\` | ${text.replace(/`#(.*?)#`/g, "`$1`")} |`;
    });
  return ["| Setting | Default | |", "| --- | --- | --- |", ...rows].join("\n");
}

if (process.argv[1] === inRoot("scripts/settings-docs.mjs")) {
  const read = (name) => readFileSync(inRoot(name), "utf8");
  const readme = read("README.md");
  const fresh = withSettings(readme, JSON.parse(read("package.json")), JSON.parse(read("package.nls.json")));
  if (!process.argv.includes("--check")) writeFileSync(inRoot("README.md"), fresh);
  else if (fresh !== readme) {
    console.error("The table of settings in README.md is out of date: run node scripts/settings-docs.mjs.");
    process.exit(1);
  }
}
