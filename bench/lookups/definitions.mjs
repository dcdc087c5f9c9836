// Definitions in source files, found by the shape of their first line, and questions that ask for them by name.

const patterns = {
  javascript: [
    /^(?<indent>[ \t]*)(?:export )?(?:default )?(?:async )?function\*? (?<name>\w+)(?<rest> ?\(.+)$/,
    /^(?<indent>[ \t]*)(?:static )?(?:async )?(?!if|for|while|switch|catch|return|function)(?<name>[A-Za-z_]\w+)(?<rest> ?\([\w, ={}[\].:]*\) \{)$/,
    /^(?<indent>[ \t]*)(?:export )?class (?<name>\w+)(?<rest> extends .+)$/,
    /^(?<indent>[ \t]*)(?:export )?const (?<name>\w+)(?<rest> = (?:async )?\(.+\) => .*)$/,
  ],
  python: [
    /^(?<indent>[ \t]*)(?:async )?def (?<name>\w+)(?<rest>\(.+\)(?: ->.+)?:)$/,
    /^(?<indent>[ \t]*)class (?<name>\w+)(?<rest>\(.+\):)$/,
  ],
};
patterns.rust = [
  /^(?<indent>[ \t]*)(?:pub(?:\([^)]*\))? )?(?:const |async |unsafe )*fn (?<name>\w+)(?<rest>\(.+\).*)$/,
];
patterns.go = [
  /^(?<indent>)func (?:\([^)]*\) )?(?<name>\w+)(?<rest>\(.+)$/,
  /^(?<indent>)type (?<name>\w+)(?<rest> func.+)$/,
];
patterns.typescript = patterns.javascript;
const languages = {
  ".js": "javascript",
  ".mjs": "javascript",
  ".cjs": "javascript",
  ".ts": "typescript",
  ".py": "python",
  ".rs": "rust",
  ".go": "go",
};

/** Names that are asked for must say something, and what is asked for must not be guessed: neither from the name nor from how often it is right. */
const nameMin = 5;
const lettersMin = 5;
const restMax = 70;
const sameRestMax = 3;

/**
 * First lines of definitions: `[{name, path, line, lead, rest, language}]`; `lead + name + rest` is the line without its indentation, `line` counts
 * from 1. Only names that are defined once and whose line stands once in all files are given.
 */
export function definitions(files) {
  const found = [];
  const lineCounts = new Map();
  for (const file of files) {
    const language = languages[file.path.slice(file.path.lastIndexOf("."))];
    if (language === undefined) continue;
    file.text.split("\n").forEach((text, index) => {
      const trimmed = text.trim();
      lineCounts.set(trimmed, (lineCounts.get(trimmed) ?? 0) + 1);
      for (const pattern of patterns[language]) {
        const match = pattern.exec(text);
        if (match === null) continue;
        const { indent, name, rest } = match.groups;
        const lead = text.slice(indent.length, text.length - rest.length - name.length);
        found.push({ name, path: file.path, line: index + 1, lead, rest: rest.trimEnd(), language });
        break;
      }
    });
  }
  const names = counts(found.map(({ name }) => name));
  const rests = counts(found.map(({ rest }) => rest));
  return found.filter(
    ({ name, lead, rest }) =>
      names.get(name) === 1 &&
      rests.get(rest) <= sameRestMax &&
      lineCounts.get(lead + name + rest) === 1 &&
      name.length >= nameMin &&
      name !== "constructor" &&
      rest.length <= restMax &&
      (rest.match(/[A-Za-z]/g) ?? []).length >= lettersMin,
  );
}

/**
 * The question as a user would put it, what the answer begins with, and what is to follow: up to what closes the line, which models write together
 * with the line's end.
 */
export function question({ name, lead, rest, language }) {
  return {
    question: `Quote the line that defines \`${name}\`, exactly as it stands in the repository.`,
    start: `\`\`\`${language}\n${lead}${name}`,
    answer: rest.replace(/\W+$/, ""),
  };
}

function counts(values) {
  const result = new Map();
  for (const value of values) result.set(value, (result.get(value) ?? 0) + 1);
  return result;
}
