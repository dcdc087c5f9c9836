export interface PageOptions {
  /** Where the webview may load from, as its `cspSource` says. */
  readonly cspSource: string;
  readonly scriptUri: string;
  readonly styleUri: string;
  /** Fresh for each page. */
  readonly nonce: string;
  /** Shown by the editor's developer tools and read by screen readers. */
  readonly title: string;
  /** Of the page's words, such as "de". */
  readonly language: string;
  /** What the script needs from the start, such as its words. Plain data. */
  readonly data: unknown;
}

/**
 * A page of ours. Its policy allows one script and one style sheet of ours, and nothing from elsewhere: no image, no
 * frame, no connection. An answer of the model can therefore load nothing.
 */
export function page({ cspSource, scriptUri, styleUri, nonce, title, language, data }: PageOptions): string {
  const policy = [
    "default-src 'none'",
    `style-src ${cspSource}`,
    `script-src 'nonce-${nonce}'`,
    "base-uri 'none'",
    "form-action 'none'",
  ].join("; ");
  return `<!DOCTYPE html>
<html lang="${escaped(language)}">
  <head>
    <meta charset="utf-8" />
    <meta http-equiv="Content-Security-Policy" content="${escaped(policy)}" />
    <meta name="viewport" content="width=device-width, initial-scale=1" />
    <link rel="stylesheet" href="${escaped(styleUri)}" />
    <title>${escaped(title)}</title>
  </head>
  <body>
    <div id="app" data-page="${escaped(JSON.stringify(data))}"></div>
    <script nonce="${escaped(nonce)}" src="${escaped(scriptUri)}"></script>
  </body>
</html>`;
}

function escaped(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll('"', "&quot;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}
