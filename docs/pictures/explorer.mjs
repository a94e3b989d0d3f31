// Takes explorer.png of explorer.html, at twice the pixels: node docs/pictures/explorer.mjs

import { launch } from "../../tests/explorer/browser.mjs";

const browser = await launch();
const context = await browser.newContext({ viewport: { width: 1100, height: 880 }, deviceScaleFactor: 1.5 });
const page = await context.newPage();
await page.goto(new URL("explorer.html", import.meta.url).href);
await page.screenshot({ path: new URL("explorer.png", import.meta.url).pathname });
await browser.close();
