// The committed page is what its sources make, and its types are sound.

import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { it } from "node:test";
import { fileURLToPath } from "node:url";
import { built, sources } from "./browser.mjs";

const run = (...words) => execFileSync(process.execPath, words, { cwd: fileURLToPath(sources), encoding: "utf8", stdio: "pipe" });

it("explorer.html is what its sources make", async () => {
  const { page } = await import(new URL("build.mjs", sources));
  assert.ok((await readFile(built, "utf8")) === (await page()), "not so: make explorer");
});

it("has one place for the data, and asks the network for nothing", async () => {
  const text = await readFile(built, "utf8");
  assert.equal(text.split("{{DATA}}").length, 2);
  assert.match(text, /<script type="application\/json" id="data">\{\{DATA\}\}<\/script>/);
  assert.ok(!/(src|href)="(?!#)|@import|url\(|fetch\(|XMLHttpRequest/.test(text));
  assert.ok(!/innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(/.test(text));
});

it("the scripts' types are sound", () => {
  run(fileURLToPath(new URL("node_modules/typescript/bin/tsc", sources)), "--project", "jsconfig.json");
});
