/**
 * What a file's name says about it. Pure.
 */

import type { LeftOutReason } from "../protocol";

/** Why a file of this path is left out whatever it holds; undefined when its name says nothing against it. */
export function reasonByPath(path: string): LeftOutReason | undefined {
  const parts = path.toLowerCase().split("/");
  const name = parts.pop() ?? "";
  if (parts.some((folder) => secretFolders.has(folder)) || isSecretName(name)) return "secret";
  if (parts.some((folder) => generatedFolders.has(folder)) || isGeneratedName(name)) return "generated";
  return binaryEndings.has(endingOf(name)) ? "binary" : undefined;
}

/** Folders of tools and installed packages; where no version control says what belongs to the project, they are not entered. */
export function isForeignFolder(name: string): boolean {
  return generatedFolders.has(name.toLowerCase());
}

/** Folders that are never shown, not even as left out. */
export const hiddenFolders: ReadonlySet<string> = new Set([".git", ".hg", ".svn", ".jj"]);

const secretFolders = new Set([".aws", ".azure", ".docker", ".gnupg", ".kube", ".ssh", ".gcloud", ".password-store"]);

const secretNames = new Set([
  ".envrc",
  ".dockercfg",
  ".git-credentials",
  ".htpasswd",
  ".netrc",
  "_netrc",
  ".npmrc",
  ".pgpass",
  ".my.cnf",
  ".pypirc",
  ".s3cfg",
  ".vault-token",
  ".yarnrc.yml",
  "credentials",
  "wallet.dat",
]);

const secretEndings = new Set([
  "jks",
  "kdb",
  "kdbx",
  "key",
  "keystore",
  "keytab",
  "ovpn",
  "p12",
  "pem",
  "pfx",
  "ppk",
  "tfstate",
  "tfvars",
]);

function isSecretName(name: string): boolean {
  if (secretNames.has(name) || secretEndings.has(endingOf(name))) return true;
  // .env and .env.production, but not .env.example, which is there to be read.
  if (/^\.env(\.|$)/.test(name)) return !/\.(example|sample|template|dist)$/.test(name);
  if (/^id_(rsa|dsa|ecdsa|ed25519)/.test(name)) return !name.endsWith(".pub");
  if (/\.tfstate\.backup$/.test(name)) return true;
  return /^(credentials?|secrets?|service[-_]?account[^.]*|client_secret[^.]*)\.(json|ya?ml|toml|ini|env|properties|txt)$/.test(
    name,
  );
}

const generatedFolders = new Set([
  "node_modules",
  "bower_components",
  "__pycache__",
  ".venv",
  "site-packages",
  ".tox",
  ".mypy_cache",
  ".pytest_cache",
  ".gradle",
  ".next",
  ".nuxt",
  ".svelte-kit",
  ".terraform",
]);

const generatedNames = new Set([
  "bun.lock",
  "cargo.lock",
  "composer.lock",
  "flake.lock",
  "gemfile.lock",
  "go.sum",
  "gradle.lockfile",
  "mix.lock",
  "npm-shrinkwrap.json",
  "package-lock.json",
  "packages.lock.json",
  "pdm.lock",
  "pipfile.lock",
  "pnpm-lock.yaml",
  "podfile.lock",
  "poetry.lock",
  "pubspec.lock",
  "uv.lock",
  "yarn.lock",
]);

function isGeneratedName(name: string): boolean {
  return (
    generatedNames.has(name) ||
    /\.min\.(js|mjs|cjs|css|html)$/.test(name) ||
    /\.(map|pb\.go|pb\.cc|pb\.h|g\.dart|freezed\.dart|designer\.cs)$/.test(name) ||
    /_pb2(_grpc)?\.pyi?$/.test(name)
  );
}

const binaryEndings = new Set(
  (
    "7z a aab aac accdb ai apk ar avi avif bin blend bmp br bz2 cab class crx db deb dex dll dmg doc docx dylib ear eot exe fbx flac gguf gif glb gz " +
    "h5 heic ico icns iso jar jpeg jpg ko lib lz4 lzma m4a m4v mdb mkv mo mov mp3 mp4 mpeg mpg msi nar node nupkg o obj ogg onnx otf parquet pdf pkl " +
    "png ppt pptx psd pt pth pyc pyd pyo rar rlib rpm safetensors so sqlite sqlite3 squashfs stl swf tar tflite tgz tif tiff ttf vsix war wasm wav " +
    "webm webp whl wmv woff woff2 xls xlsx xz zip zst"
  ).split(" "),
);

/** What follows the last dot, in lower case; "" for a name without one. */
function endingOf(name: string): string {
  const dot = name.lastIndexOf(".");
  return dot < 0 ? "" : name.slice(dot + 1);
}
