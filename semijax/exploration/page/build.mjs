// Bundles the page's script and style into one file, `semijax/exploration/explorer.html`: a template in
// which `{{DATA}}`, which is there once, stands for the data.
//
//     node build.mjs           writes it
//     node build.mjs --check   compares it with what is there

import { createHash } from "node:crypto";
import { readFile, writeFile } from "node:fs/promises";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = (path) => new URL(path, import.meta.url);
const target = here("../explorer.html");

/** The page as text. */
export async function page() {
  const bundle = async (entry, options) => {
    const result = await build({
      entryPoints: [fileURLToPath(here(entry))],
      absWorkingDir: fileURLToPath(here(".")), // its comments name files, from here
      bundle: true,
      write: false,
      charset: "utf8",
      target: "es2023",
      ...options,
    });
    return result.outputFiles[0].text;
  };
  const template = await readFile(here("src/template.html"), "utf8");
  // It may not end the element that it stands in, whatever it says.
  const script = (await bundle("src/main.js", { format: "iife" })).replaceAll("</script", "<\\/script");
  const style = await bundle("src/style.css", {});
  // Only this very script is run, whatever the data are.
  const hash = `sha256-${createHash("sha256").update(`\n${script}`).digest("base64")}`;
  const parts = { STYLE: style, SCRIPT: script, HASH: hash };
  const text = template.replace(/\{\{(STYLE|SCRIPT|HASH)\}\}/g, (_, name) => parts[name]);
  if (text.split("{{DATA}}").length !== 2) throw new Error("{{DATA}} must be in the page once.");
  return text;
}

if (import.meta.filename === process.argv[1]) {
  const text = await page();
  if (process.argv.includes("--check")) {
    if ((await readFile(target, "utf8")) !== text) {
      console.error("explorer.html is not what its sources make: make explorer");
      process.exit(1);
    }
  } else {
    await writeFile(target, text);
    console.log(`explorer.html: ${(text.length / 1024).toFixed(0)} KiB`);
  }
}
