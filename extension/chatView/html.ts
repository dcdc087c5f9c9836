export interface PageOptions {
  /** Where the webview may load from, as its `cspSource` says. */
  readonly cspSource: string;
  readonly scriptUri: string;
  readonly styleUri: string;
  /** Fresh for each page. */
  readonly nonce: string;
}

/**
 * The page of the chat view. Its policy allows one script and one style sheet of ours, and nothing from elsewhere: no
 * image, no frame, no connection. An answer of the model can therefore load nothing.
 */
export function chatPage({ cspSource, scriptUri, styleUri, nonce }: PageOptions): string {
  const policy = [
    "default-src 'none'",
    `style-src ${cspSource}`,
    `script-src 'nonce-${nonce}'`,
    "base-uri 'none'",
    "form-action 'none'",
  ].join("; ");
  return `<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="utf-8" />
    <meta http-equiv="Content-Security-Policy" content="${escaped(policy)}" />
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <link rel="stylesheet" href="${escaped(styleUri)}" />
    <title>Nosa</title>
  </head>
  <body>
    <div id="app"></div>
    <script nonce="${escaped(nonce)}" src="${escaped(scriptUri)}"></script>
  </body>
</html>`;
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
