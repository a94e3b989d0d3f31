// Pictures of the page for people to look at: node tests/explorer/screenshots.mjs FOLDER

import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { folder, launch, tab, write } from "./browser.mjs";
import { fixture } from "./fixture.mjs";

const target = process.argv[2] ?? "screenshots";
mkdirSync(target, { recursive: true });
const browser = await launch();
const files = folder();
for (const layers of [2, 12, 24]) {
  for (const tokens of [1, 12, 64]) {
    const address = write(files, fixture({ layers, tokens }), `${layers}-${tokens}.html`);
    for (const colorScheme of ["light", "dark"]) {
      const { page, problems, close } = await tab(browser, { colorScheme });
      await page.goto(address);
      await page.screenshot({ path: join(target, `${layers}-${tokens}-${colorScheme}.png`) });
      if (problems.length) console.log(layers, tokens, problems);
      await close();
    }
  }
}
await browser.close();
