// A headless Chromium, and the page in it.
//
// The one that CHROMIUM names, or one on the PATH, or else one that comes in an npm package, with the
// libraries that it needs: a machine needs nothing that this project's files do not install.

import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { pathToFileURL } from "node:url";

export const sources = new URL("../../semijax/exploration/page/", import.meta.url);
export const built = new URL("../../semijax/exploration/explorer.html", import.meta.url);
const require = createRequire(new URL("package.json", sources));
const { chromium } = require("playwright-core");

async function executable() {
  if (process.env.CHROMIUM) return { executablePath: process.env.CHROMIUM, args: ["--no-sandbox"] };
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    for (const name of ["chromium", "chromium-browser", "google-chrome"]) {
      const path = join(folder, name);
      if (existsSync(path)) return { executablePath: path, args: ["--no-sandbox"] };
    }
  }
  // It unpacks itself into the temporary folder: here one of its own, which is kept for the next time.
  const before = process.env.TMPDIR;
  const folder = new URL("node_modules/.cache/chromium/", sources).pathname;
  mkdirSync(folder, { recursive: true });
  process.env.TMPDIR = folder;
  process.env.VERCEL = "1"; // unpack the libraries too
  const { default: packed } = await import(pathToFileURL(require.resolve("@sparticuz/chromium")).href);
  const executablePath = await packed.executablePath();
  // Its own configuration looks for its fonts in one fixed folder, where it did not unpack them. They lack
  // arrows, which the machine's may have.
  const configuration = join(folder, "fonts.conf");
  writeFileSync(configuration, `<fontconfig><dir>${folder}fonts</dir><dir>/usr/share/fonts</dir><cachedir>${folder}fonts-cache</cachedir></fontconfig>`);
  process.env.FONTCONFIG_FILE = configuration;
  if (before === undefined) delete process.env.TMPDIR;
  else process.env.TMPDIR = before;
  return { executablePath, args: ["--no-sandbox", "--headless=shell", "--no-zygote", "--disable-gpu"] };
}

export async function launch() {
  return chromium.launch({ ...(await executable()), headless: true });
}

/** The page with data in it, as a file. */
export function write(folder, data, name = "page.html") {
  const json = JSON.stringify(data).replaceAll("<", "\\u003c");
  const path = join(folder, name);
  writeFileSync(path, readFileSync(built, "utf8").replace("{{DATA}}", () => json));
  return pathToFileURL(path).href;
}

export function folder() {
  const path = mkdtempSync(join(tmpdir(), "explorer-"));
  process.on("exit", () => rmSync(path, { recursive: true, force: true }));
  return path;
}

/** A tab in which errors and requests are kept. */
export async function tab(browser, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1200, height: 800 }, acceptDownloads: true, ...options });
  const page = await context.newPage();
  const problems = [];
  // The tests read canvases back, of which the browser warns.
  const own = /^Canvas2D: Multiple readback/;
  page.on("console", (message) => {
    if (["error", "warning"].includes(message.type()) && !own.test(message.text())) problems.push(message.text());
  });
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("request", (request) => {
    if (!/^(file|blob|data):/.test(request.url())) problems.push(`requested ${request.url()}`);
  });
  return { page, problems, close: () => context.close() };
}
