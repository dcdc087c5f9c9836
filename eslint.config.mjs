// What the compiler does not check: dependency directions, floating promises, and the few constructs this code does without.
import { createNodeResolver, flatConfigs as importX } from "eslint-plugin-import-x";
import tseslint from "typescript-eslint";

/**
 * The engine's layers, highest first. A file may import from its own layer and from lower ones.
 * Folders of one layer may know each other, except the features: what two of them share belongs in a lower layer.
 */
const layers = [
  ["main.ts", "cli.ts", "cli"],
  ["server.ts", "server"],
  ["engine.ts"],
  ["chat", "completions", "indexing"],
  ["sessions"],
  ["generation", "contexts", "prompts", "repository", "models"],
  ["scheduler", "documents"],
  ["native", "tokenizer"],
  [
    "connect.ts",
    "lock.ts",
    "lockFile.ts",
    "log.ts",
    "config.ts",
    "errors.ts",
    "paths.ts",
    "version.ts",
    "protocol.ts",
    "util",
  ],
];
const features = layers[3];

const inEngine = (name) => `./engine/${name}`;

function engineZones() {
  const downward = layers.flatMap((layer, index) => {
    const higher = layers.slice(0, index).flat().map(inEngine);
    if (higher.length === 0) return [];
    return layer.map((name) => ({
      target: inEngine(name),
      from: higher,
      message: "Imports go down the layers of eslint.config.mjs, never up.",
    }));
  });
  const apart = features.map((name) => ({
    target: inEngine(name),
    from: features.filter((other) => other !== name).map(inEngine),
    message: "Features do not import one another; what two of them share belongs in a lower folder.",
  }));
  return [...downward, ...apart];
}

const zones = [
  ...engineZones(),
  { target: "./engine", from: ["./extension", "./media"], message: "The engine runs without an editor." },
  {
    target: "./extension",
    from: "./engine",
    except: ["./protocol.ts", "./connect.ts"],
    message: "The extension knows of the engine what protocol.ts says, and how to connect to it.",
  },
  { target: "./extension", from: "./media", message: "The view runs in a browser; the extension does not." },
  {
    target: "./media",
    from: ["./engine", "./extension"],
    except: ["./chatView/messages.ts", "./contextMap/messages.ts"],
    message: "A page knows the messages.ts of its keeper, as types.",
  },
  { target: ["./engine", "./extension", "./media"], from: "./test", message: "Nothing imports tests." },
];

/** Shapes of syntax that STYLE.md does without. */
const withoutSyntax = [
  { selector: "ExportDefaultDeclaration", message: "Export by name: then one thing has one name everywhere." },
  { selector: "TSEnumDeclaration", message: "Use a union of string literals." },
];

const only = (modules, message) => modules.map((name) => ({ name, message }));

export default tseslint.config(
  {
    ignores: [
      "**/node_modules/",
      "dist/",
      "build/",
      ".cache/",
      "test-results/",
      "samples/",
      "training/",
      "**/fixtures/",
      ".venv/",
    ],
  },
  {
    files: ["{engine,extension,media,test}/**/*.ts", "vitest.config.ts"],
    extends: [tseslint.configs.recommendedTypeChecked, importX.typescript],
    languageOptions: {
      parserOptions: {
        projectService: { allowDefaultProject: ["vitest.config.ts"] },
        tsconfigRootDir: import.meta.dirname,
      },
    },
    settings: {
      "import-x/resolver-next": [createNodeResolver({ extensions: [".ts", ".mjs", ".js", ".json"] })],
    },
    rules: {
      "no-restricted-syntax": ["error", ...withoutSyntax],
      eqeqeq: "error",
      "max-params": ["error", 5],
      "@typescript-eslint/no-explicit-any": "error",
      "@typescript-eslint/no-non-null-assertion": "error",
      "@typescript-eslint/no-floating-promises": ["error", { ignoreVoid: true }],
      "@typescript-eslint/switch-exhaustiveness-check": ["error", { considerDefaultExhaustiveForUnions: true }],
      "@typescript-eslint/consistent-type-imports": [
        "error",
        { fixStyle: "inline-type-imports", disallowTypeAnnotations: false },
      ],
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      // An interface may ask for a promise from an implementation that needs none.
      "@typescript-eslint/require-await": "off",
      // What was caught is passed on as it is.
      "@typescript-eslint/prefer-promise-reject-errors": ["error", { allowThrowingUnknown: true }],
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true, allowBoolean: true }],
      "import-x/no-restricted-paths": ["error", { basePath: import.meta.dirname, zones }],
      "import-x/no-cycle": ["error", { ignoreExternal: true }],
    },
  },
  {
    files: ["engine/**/*.ts", "media/**/*.ts"],
    rules: { "no-restricted-imports": ["error", { paths: only(["vscode"], "Only extension/ knows the editor.") }] },
  },
  {
    files: ["media/**/*.ts"],
    rules: {
      "no-restricted-imports": [
        "error",
        { patterns: [{ group: ["node:*", "vscode*"], message: "The view runs in a browser." }] },
      ],
    },
  },
  {
    // Tests look into values of unknown shape, and stand in for big interfaces with small objects.
    files: ["test/**/*.ts", "vitest.config.ts"],
    rules: {
      "no-restricted-syntax": "off",
      "@typescript-eslint/no-unsafe-assignment": "off",
      "@typescript-eslint/no-unsafe-member-access": "off",
      "@typescript-eslint/no-unsafe-argument": "off",
      "@typescript-eslint/no-unsafe-call": "off",
      "@typescript-eslint/no-unsafe-return": "off",
      "@typescript-eslint/unbound-method": "off",
    },
  },
  {
    files: ["**/*.mjs"],
    extends: [tseslint.configs.base],
    languageOptions: { parserOptions: { ecmaVersion: "latest", sourceType: "module" } },
    rules: {
      eqeqeq: "error",
      "no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      "no-undef": "off",
      "prefer-const": "error",
      "no-var": "error",
    },
  },
);
