// What a reader does with the page, in a real browser.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { after, before, describe, it } from "node:test";
import { folder, launch, tab, write } from "./browser.mjs";
import { fixture } from "./fixture.mjs";

const files = folder();
const data = fixture({ layers: 2, tokens: 12 });
let browser, address;

before(async () => {
  browser = await launch();
  address = write(files, data);
});
after(() => browser?.close());

/** A test with the page open; no errors, no requests. */
function on(name, act, { hash = "", file = () => address, expected = [], ...options } = {}) {
  it(name, async () => {
    const { page, problems, close } = await tab(browser, options);
    try {
      await page.goto(file() + hash);
      await act(page);
      assert.deepEqual(problems, expected);
    } finally {
      await close();
    }
  });
}

const text = (page, id) => page.locator(id).innerText();
const hash = (page) => page.evaluate(() => decodeURIComponent(location.hash.slice(1)));
const frame = (page) => page.evaluate(() => new Promise((done) => requestAnimationFrame(() => setTimeout(done, 0))));

/** Where a node is on the screen: its row's name and its token's label cross there. */
async function spot(page, row, column) {
  const name = await page.locator(`.row .label[data-key="${row}:*"]`).boundingBox();
  const token = await page.locator(".token").nth(column).boundingBox();
  return { x: token.x + token.width / 2, y: name.y + name.height / 2 };
}

/** The number of pixels of the graph that differ from the paper. */
const inked = (page) =>
  page.evaluate(() => {
    const canvas = document.querySelector("canvas.base");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    let count = 0;
    for (let i = 0; i < data.length; i += 4) if (Math.abs(data[i] - data[0]) > 40) count++;
    return count;
  });

const rowOf = (name) => data.rows.findIndex((row) => row.name === name);

/** The numbers of the stories, those first that carry most in the first reading. */
const listed = [...data.stories.keys()].sort((a, b) => Math.abs(data.stories[b].together[0]) - Math.abs(data.stories[a].together[0]));

/** The stored edges on a path through a set of nodes, the plain way. */
function passing(set) {
  const { tail, head } = data.edges;
  const reach = (from, to) => {
    const found = new Set(set);
    for (let size = -1; size !== found.size; ) {
      size = found.size;
      from.forEach((node, e) => found.has(node) && found.add(to[e]));
    }
    return found;
  };
  const down = reach(head, tail);
  const up = reach(tail, head);
  return tail.flatMap((node, e) => ((down.has(node) && down.has(head[e])) || (up.has(node) && up.has(head[e])) ? [e] : []));
}
const nodeAt = (row, column) => data.nodes.row.findIndex((r, n) => r === row && data.nodes.column[n] === column);

describe("the page", () => {
  on("shows the title, a sentence, the grid and all stories", async (page) => {
    assert.equal(await page.title(), data.title);
    assert.equal(await text(page, "#title"), data.title);
    assert.match(await text(page, "#sentence"), /^Edges carry the sum of \|weight\| over all paths that cross them/);
    assert.equal(await text(page, "#count"), `${data.edges.tail.length} of ${data.edges.tail.length} edges`);
    assert.equal(await page.locator(".token").count(), 12);
    assert.equal(await page.locator(".row").count(), data.rows.length);
    assert.ok((await inked(page)) > 5000);
    assert.match(await text(page, "#legend"), /mass, share of all.*%.*node: mass through it/s);
    await page.getByText("show all 10").click();
    assert.deepEqual(await page.locator(".story .told").allInnerTexts(), listed.map((n) => data.stories[n].told));
  });

  on("says what a node is when pointed at", async (page) => {
    const row = rowOf("h/1/attn");
    const { x, y } = await spot(page, row, 8);
    await page.mouse.move(x, y);
    await frame(page);
    const said = await text(page, "#tip");
    const node = nodeAt(row, 8);
    assert.match(said, /h\/1\/attn “which”/);
    assert.match(said, new RegExp(`value \\(rms\\)\\s+${Number(data.nodes.value[node].toPrecision(3))}`));
    assert.match(said, /scope\s+transformer\/h\/1\/attn/);
    assert.match(said, /source\s+model\.py:25 \(attn\)/);
    assert.match(said, /mass\s+[\d.]+ \([\d.]+ %\)/);
  });

  on("says what an edge carries when pointed at", async (page) => {
    const [from, to] = [await spot(page, rowOf("h/1/attn/value"), 0), await spot(page, rowOf("h/1/attn"), 0)];
    await page.mouse.move(from.x, (from.y + to.y) / 2);
    await frame(page);
    const said = await text(page, "#tip");
    assert.match(said, /h\/1\/attn\/value “The” → h\/1\/attn “The”\s+mass\s+[\d.]+ \([\d.]+ %\)/);
    assert.match(said, /gradient\s+.*strongest\s+[\d.]+.*from\s+transformer\/h\/1\/attn\/value, model.py:24/s);
  });

  on("isolates what passes through a node that is clicked, and takes it back", async (page) => {
    const row = rowOf("h/1/attn");
    const { x, y } = await spot(page, row, 3);
    await page.mouse.click(x, y);
    assert.equal(await hash(page), `at=${row}:3`);
    const expected = passing([nodeAt(row, 3)]);
    assert.match(await text(page, "#chosen"), new RegExp(`through h/1/attn at “the”.*${expected.length} of the 600 stored edges lie`, "s"));
    await page.locator("#share").fill("0.5");
    const first = Number.parseInt(await text(page, "#count"));
    const shown = expected.filter((e) => e < first).length;
    assert.match(await text(page, "#chosen"), new RegExp(`${shown} of the ${first} edges shown`));
    await page.getByText(`show the ${expected.length - shown} below`).click();
    assert.equal(await hash(page), `at=${row}:3`);
    await page.mouse.click(x, y);
    assert.equal(await hash(page), "");
    assert.ok(await page.locator("#chosen").isHidden());
  });

  on("isolates a whole row by its name", async (page) => {
    const row = rowOf("h/0/mlp");
    await page.locator(`[data-key="${row}:*"]`).click();
    const set = data.nodes.row.flatMap((r, n) => (r === row ? [n] : []));
    assert.match(await text(page, "#chosen"), new RegExp(`through h/0/mlp.*${passing(set).length} of the 600`, "s"));
  });

  on("prunes to a share of the mass", async (page) => {
    const before = await inked(page);
    await page.locator("#share").fill("0.5");
    const [mass] = data.edges.weights;
    const half = (0.5 * mass.reduce((a, b) => a + b)) / data.edges.shown[0];
    let carried = 0;
    const expected = 1 + mass.findIndex((m) => (carried += m) >= half);
    assert.equal(await text(page, "#count"), `${expected} of 600 edges`);
    assert.equal(await text(page, "#share-said"), "50 % of the mass");
    assert.ok((await inked(page)) < before);
    await page.locator("#share").press("ArrowRight");
    assert.equal(await hash(page), "share=0.51");
  });

  on("switches the reading", async (page) => {
    await page.getByRole("radio", { name: "gradient" }).check();
    assert.match(await text(page, "#sentence"), /positive and negative paths cancel/);
    assert.match(await text(page, "#legend"), /positive.*negative/s);
    assert.equal(await hash(page), "reading=gradient");
    await page.getByRole("radio", { name: "entropy" }).check();
    assert.match(await text(page, "#sentence"), /entropy of the paths/);
  });

  on("highlights a story that is pointed at, and keeps one that is clicked", async (page) => {
    const story = page.locator(".story").nth(1);
    const over = () => page.evaluate(() => {
      const canvas = document.querySelector("canvas.over");
      return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean);
    });
    assert.equal(await over(), false);
    await story.hover();
    await frame(page);
    assert.equal(await over(), true);
    await page.mouse.move(600, 20);
    await frame(page);
    assert.equal(await over(), false);
    await story.click();
    assert.equal(await hash(page), `story=${listed[1] + 1}`);
    assert.equal(await story.getAttribute("aria-pressed"), "true");
    await page.mouse.move(600, 20);
    await frame(page);
    assert.equal(await over(), true);
  });

  on("isolates what starts at a token, and its stories", async (page) => {
    await page.locator(".token").nth(1).click();
    assert.equal(await hash(page), "token=1");
    const expected = passing([nodeAt(0, 1)]);
    assert.match(await text(page, "#chosen"), new RegExp(`starts at “keys”.*${expected.length} of the 600`, "s"));
    const told = await page.locator(".story .told").allInnerTexts();
    assert.ok(told.length && told.every((each) => each.startsWith("starts at “keys”")));
  });

  on("links heads with the grid", async (page) => {
    assert.equal(await page.locator("#heads td[aria-label]").count(), 24);
    const cell = page.locator("#heads tbody tr").first().locator("td").nth(3);
    await cell.hover();
    assert.match(await text(page, "#head-said"), /h\/1\/attn, head 3: [\d.]+ \([\d.]+ %\)/);
    await cell.click();
    assert.equal(await hash(page), `at=${rowOf("h/1/attn")}:*`);
  });

  on("makes a layer one row, and its rows again", async (page) => {
    await page.locator(".fold").first().click();
    assert.equal(await page.locator(".row").count(), data.rows.length - 8);
    assert.equal(await hash(page), "closed=0");
    const fold = page.locator(".layer.closed .fold");
    assert.equal(await fold.getAttribute("aria-expanded"), "false");
    const row = await page.locator(".layer.closed .sticky").boundingBox();
    const token = await page.locator(".token").nth(11).boundingBox();
    await page.mouse.move(token.x + token.width / 2, row.y + row.height / 2);
    await frame(page);
    assert.match(await text(page, "#tip"), /h\/0 “opened”.*layer of\s+8 components.*most mass/s);
    await fold.click();
    assert.equal(await page.locator(".row").count(), data.rows.length);
    await page.locator("#fold").click();
    assert.equal(await page.locator(".row").count(), 3);
    assert.equal(await hash(page), "closed=all");
    await page.locator("#unfold").click();
    assert.equal(await hash(page), "");
  });

  on("asks for paths through all pins, or any", async (page) => {
    const [a, b] = [rowOf("h/0/attn"), rowOf("h/1/attn")];
    for (const [row, column] of [[a, 2], [b, 5]]) {
      const { x, y } = await spot(page, row, column);
      await page.mouse.click(x, y);
      await page.locator('[data-key="pin"]').click();
      await page.mouse.click(x, y);
    }
    assert.equal(await hash(page), `pins=${a}:2,${b}:5`);
    const [first, second] = [passing([nodeAt(a, 2)]), passing([nodeAt(b, 5)])];
    assert.match(await text(page, "#chosen"), new RegExp(`${throughBoth(nodeAt(a, 2), nodeAt(b, 5))} of the 600`));
    await page.getByText("through any pin").click();
    assert.match(await text(page, "#chosen"), new RegExp(`${new Set([...first, ...second]).size} of the 600`));
    await page.locator(".chip button").first().click();
    assert.equal(await hash(page), `pins=${b}:5&mode=any`);
  });

  on("says so if no path passes through all pins", async (page) => {
    assert.match(await text(page, "#chosen"), /No path through the stored edges/);
  }, { hash: `#pins=${rowOf("h/1/attn")}:2,${rowOf("h/1/attn")}:5` });

  const link = `#reading=gradient&share=0.8&closed=0&at=${rowOf("h/1/mlp")}:11&pins=g0:2&token=2&story=3&zoom=1.25`;
  on("restores what a link says", async (page) => {
    assert.equal(await hash(page), link.slice(1));
    assert.equal(await page.locator("#readings input:checked").getAttribute("value"), "1");
    assert.equal(await text(page, "#share-said"), "80 % of all sizes");
    assert.equal(await page.locator(".row").count(), data.rows.length - 8);
    assert.match(await text(page, "#chosen"), /starts at “to”.*through h\/1\/mlp at “opened”.*h\/0 at “to”/s);
    assert.equal(await page.locator(".token").nth(2).getAttribute("aria-pressed"), "true");
    await page.keyboard.press("1");
    assert.ok(!(await hash(page)).includes("reading"));
    await page.goto(address + link.replace("0.8", "0.6"));
    assert.equal(await text(page, "#share-said"), "60 % of all sizes");
  }, { hash: link });

  on("does not break on a link that makes no sense", async (page) => {
    assert.equal(await text(page, "#count"), "600 of 600 edges");
    assert.ok(await page.locator("#chosen").isHidden());
  }, { hash: "#reading=none&share=x&closed=99&at=999:1&pins=g9:1,oops&token=77&story=0&zoom=9" });

  on("is used with the keyboard", async (page) => {
    const order = [];
    while (order.length < 30 && order.at(-1) !== "plot") {
      await page.keyboard.press("Tab");
      order.push(await page.evaluate(() => document.activeElement.id || document.activeElement.className));
    }
    assert.equal(order[0], "skip");
    assert.equal(order.at(-1), "plot", order.join());
    assert.ok(order.includes("share") && order.includes("fold"), order.join());
    assert.match(await text(page, "#details"), /wte “The”/);
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("ArrowRight");
    assert.match(await text(page, "#details"), /h\/0\/ln_1 “keys”/);
    assert.match(await page.locator("#live").textContent(), /h\/0\/ln_1 “keys”\. mass: .*scope: transformer/);
    await page.keyboard.press("Shift+ArrowUp");
    assert.match(await text(page, "#details"), /h\/0\/attn\/(value|key|query) “keys”/);
    await page.keyboard.press("ArrowDown");
    await page.keyboard.press("Enter");
    assert.match(await hash(page), /^at=\d:1$/);
    await page.keyboard.press("p");
    assert.match(await hash(page), /pins=\d:1/);
    await page.keyboard.press("Escape");
    assert.equal(await hash(page), "");
    await page.keyboard.press("2");
    assert.equal(await hash(page), "reading=gradient");
    await page.keyboard.press("]");
    assert.equal(await hash(page), "reading=strongest");
    await page.keyboard.press("[");
    await page.keyboard.press("[");
    assert.equal(await hash(page), "");
    await page.keyboard.press("g");
    assert.equal(await hash(page), "closed=0");
    await page.keyboard.press("+");
    assert.equal(await hash(page), "closed=0&zoom=1.25");
    await page.keyboard.press("?");
    assert.ok(await page.locator("#keys").isVisible());
    await page.keyboard.press("Escape");
    assert.ok(await page.locator("#keys").isHidden());
  });

  on("keeps the focus where it is when parts are drawn again", async (page) => {
    await page.locator(".token").nth(3).focus();
    await page.keyboard.press("ArrowRight");
    await page.keyboard.press("Enter");
    assert.equal(await hash(page), "token=4");
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute("data-key")), "token 4");
  });

  on("saves pictures and a table", async (page) => {
    const save = async (id) => {
      const [download] = await Promise.all([page.waitForEvent("download"), page.locator(id).click()]);
      return { name: download.suggestedFilename(), content: await readFile(await download.path()) };
    };
    const svg = await save("#svg");
    assert.match(svg.name, /^Which-token-does-are-agree-with-GPT-2-2-layers\.svg$/);
    const parsed = await page.evaluate((source) => {
      const found = new DOMParser().parseFromString(source, "image/svg+xml");
      return [found.querySelector("parsererror")?.textContent, found.querySelectorAll("path").length, found.documentElement.textContent];
    }, svg.content.toString());
    assert.equal(parsed[0], undefined);
    assert.ok(parsed[1] > 200);
    assert.match(parsed[2], /Edges carry.*h\/0\/attn.*nobody/s);
    const png = await save("#png");
    assert.equal(png.content.subarray(1, 4).toString(), "PNG");
    const row = rowOf("h/1/attn");
    await page.mouse.click(...Object.values(await spot(page, row, 3)));
    const csv = (await save("#csv")).content.toString().trim().split("\r\n");
    assert.equal(csv[0], "from,from_token,from_text,from_scope,to,to_token,to_text,to_scope,mass,mass share,gradient,strongest,entropy");
    assert.equal(csv.length - 1, passing([nodeAt(row, 3)]).length);
    const first = passing([nodeAt(row, 3)])[0];
    assert.ok(csv[1].includes(`,${data.edges.weights[0][first]},`));
  });

  for (const [scheme, other] of [["light", "dark"], ["dark", "light"]]) {
    on(`is ${scheme} where the system is, and ${other} when asked`, async (page) => {
      const bright = () => page.evaluate(() => {
        const canvas = document.querySelector("canvas.base");
        const paper = getComputedStyle(document.body).backgroundColor.match(/\d+/g).map(Number)[0];
        return [paper > 128, canvas.getContext("2d").getImageData(1, 1, 1, 1).data[0] > 128];
      });
      assert.deepEqual(await bright(), Array(2).fill(scheme === "light"));
      await page.locator("#theme").click();
      assert.deepEqual(await bright(), Array(2).fill(other === "light"));
    }, { colorScheme: scheme });
  }

  on("fits a narrow screen", async (page) => {
    const [wide, seen] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
    assert.ok(wide <= seen, `${wide} > ${seen}`);
    await page.locator(".token").nth(0).click();
    assert.equal(await hash(page), "token=0");
  }, { viewport: { width: 400, height: 800 } });
});

/** How many edges lie on a path through both of two nodes, the first below the second. */
function throughBoth(first, second) {
  const { tail, head } = data.edges;
  const from = (set, forth) => {
    const found = new Set(set);
    for (let size = -1; size !== found.size; ) {
      size = found.size;
      tail.forEach((t, e) => (forth ? found.has(t) && found.add(head[e]) : found.has(head[e]) && found.add(t)));
    }
    return found;
  };
  const [below, above, up, down] = [from([first], false), from([second], true), from([first], true), from([second], false)];
  return tail.filter((t, e) => {
    const h = head[e];
    return below.has(h) || above.has(t) || (up.has(t) && down.has(h));
  }).length;
}

describe("other data", () => {
  const cases = [
    ["one token", fixture({ layers: 2, tokens: 1 })],
    ["no tokens", fixture({ layers: 2, tokens: 0 })],
    ["no layers", fixture({ layers: 0, tokens: 3 })],
    ["no edges, stories, heads or sources", { ...fixture({ layers: 1, tokens: 2, most: 0 }), stories: [], heads: null, sources: null, unit: null }],
    ["nothing at all", {
      ...fixture({ layers: 0, tokens: 1 }), rows: [], columns: [], stories: [], heads: null, sources: null,
      nodes: { row: [], column: [], scope: [], line: [], value: [], through: [[], [], [], []] },
      edges: { tail: [], head: [], weights: [[], [], [], []], shown: [0, 0, 0, 0] },
    }],
  ];
  for (const [name, given] of cases) {
    on(`shows ${name}`, async (page) => {
      assert.equal(await text(page, "#title"), given.title);
      for (const key of ["2", "]", "Escape", "-"]) await page.keyboard.press(key);
      await page.locator("#fold").click({ timeout: 500 }).catch(() => {});
    }, { file: () => write(files, given, `${name}.html`) });
  }

  const strange = fixture({ layers: 1, tokens: 3 });
  strange.readings[1].total = "nan";
  strange.edges.weights[0] = strange.edges.weights[0].map((w, n) => [w, null, "inf", "-inf", "nan", 0][n % 6]);
  strange.nodes.value = strange.nodes.value.map((v, n) => [v, null, "inf", "nan"][n % 4]);
  strange.nodes.through[0] = strange.nodes.through[0].map((v, n) => [v, null, "inf", "nan"][n % 4]);
  on("shows what is no number as such", async (page) => {
    const { x, y } = await spot(page, 1, 0);
    await page.mouse.move(x, y);
    await frame(page);
    assert.match(await text(page, "#tip"), /∞|–|NaN/);
    for (const key of ["1", "2", "3", "4"]) await page.keyboard.press(key);
  }, { file: () => write(files, strange, "strange.html") });

  on("says so if the version is another", async (page) => {
    assert.match(await text(page, "#sentence"), /version 1; these are of version 2/);
  }, {
    file: () => write(files, { ...data, version: 2 }, "version.html"),
    expected: ["Error: This page reads data of version 1; these are of version 2."],
  });
});

describe("names", () => {
  const evil = ["<script>document.title='run'</script>", "</script><img src=x onerror=\"document.title='run'\">", "<!--", "=cmd|' /C calc'!A0"];
  const hostile = fixture({ layers: 2, tokens: 12 });
  hostile.title = evil[0];
  hostile.unit = evil[1];
  hostile.columns = hostile.columns.map((word, n) => evil[n] ?? word);
  hostile.rows = hostile.rows.map(({ group }, n) => ({ name: `${evil[n % 4]}${n}`, group: group && `${evil[1]}${group}` }));
  hostile.readings = hostile.readings.map((reading, n) => ({ ...reading, name: evil[n], semiring: evil[n] }));
  hostile.nodes.scope = hostile.nodes.scope.map((_, n) => evil[n % 4]);
  hostile.nodes.line = hostile.nodes.line.map((_, n) => evil[(n + 1) % 4]);
  hostile.stories = hostile.stories.map((story, n) => ({ ...story, told: evil[n % 4] }));
  hostile.heads.rows = hostile.heads.rows.map((_, n) => evil[n]);
  on("are shown and never run", async (page) => {
    assert.equal(await text(page, "#title"), evil[0]);
    assert.deepEqual((await page.locator(".story .told").allInnerTexts()).slice(0, 4).sort(), listed.slice(0, 4).map((n) => evil[n % 4]).sort());
    const { x, y } = await page.locator(".token").nth(1).boundingBox();
    await page.mouse.move(x + 20, y - 60);
    await page.locator(".token").nth(0).click();
    await page.locator("#plot").focus();
    await page.keyboard.press("ArrowUp");
    await page.keyboard.press("Enter");
    await page.keyboard.press("p");
    await page.keyboard.press("2");
    await frame(page);
    assert.equal(await page.title(), evil[0]);
    assert.equal(await page.locator("img, body script:not(#data) + script:not([type]) ~ script").count(), 0);
    const [download] = await Promise.all([page.waitForEvent("download"), page.locator("#svg").click()]);
    const svg = await readFile(await download.path(), "utf8");
    assert.ok(!/<script|<img/.test(svg));
    const [table] = await Promise.all([page.waitForEvent("download"), page.locator("#csv").click()]);
    assert.ok(!/(^|,)"?=cmd/m.test(await readFile(await table.path(), "utf8")));
  }, { file: () => write(files, hostile, "names.html") });
});
